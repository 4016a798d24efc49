"""Health checks by name, and the answers of `/livez` and `/readyz`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final

Check = Callable[[], str | None] | Callable[[], Awaitable[str | None]]
"""None: fine. Else why not, as one sentence for the person who looks at the probe."""

_TIMEOUT: Final = 3.0


class Health:
    """`live`: whether the process must be started anew. `ready`: whether it can do its work now."""

    def __init__(self) -> None:
        self._live: dict[str, Check] = {}
        self._ready: dict[str, Check] = {}

    def add_live(self, name: str, check: Check) -> None:
        self._live[name] = check

    def add_ready(self, name: str, check: Check) -> None:
        self._ready[name] = check

    async def live(self) -> tuple[bool, dict[str, Any]]:
        """Whether all live checks are fine, and the JSON body `{"status": …, "checks": {name: "ok" or why not}}`."""
        return await _answer(self._live)

    async def ready(self) -> tuple[bool, dict[str, Any]]:
        """As `live`; what is not live is not ready either."""
        return await _answer({**self._live, **self._ready})


async def _answer(checks: dict[str, Check]) -> tuple[bool, dict[str, Any]]:
    results = dict(zip(checks, await asyncio.gather(*map(_run, checks.values())), strict=True))
    fine = all(result is None for result in results.values())
    return fine, {
        "status": "ok" if fine else "failing",
        "checks": {name: result or "ok" for name, result in sorted(results.items())},
    }


async def _run(check: Check) -> str | None:
    try:
        result = check()
        if inspect.isawaitable(result):
            async with asyncio.timeout(_TIMEOUT):
                return await result
        return result
    except TimeoutError:
        return f"no answer within {_TIMEOUT:g} s"
    except Exception as error:
        return f"the check failed: {error!r}"
