"""Bounded retries with full jitter.

Full jitter (a delay drawn evenly from zero to an exponentially growing bound) is from Marc Brooker,
"Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import asyncio
import random as random_module
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from gpufleet.kube.errors import ApiStatusError, KubeError, Unreachable

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]
Random = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays in seconds: attempt n (from 0) waits between 0 and ``min(cap, base * 2**n)``."""

    base: float = 0.2
    cap: float = 30.0

    def delay(self, attempt: int, random: Random, at_least: float | None = None) -> float:
        """``at_least`` is what the server asked for (Retry-After); ``random`` gives values in [0, 1)."""
        bound = min(self.cap, self.base * 2.0 ** min(attempt, 60))
        return max(bound * random(), at_least or 0.0)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most ``attempts`` calls, and no single delay above ``longest_delay`` seconds: rather give up."""

    attempts: int = 4
    backoff: Backoff = Backoff(base=0.1, cap=5.0)
    longest_delay: float = 10.0
    retry_unreachable: bool = True


def may_help(error: KubeError, *, retry_unreachable: bool = True) -> bool:
    """Whether the same request can succeed later: 429, 5xx, and no answer at all."""
    if isinstance(error, ApiStatusError):
        return error.throttled or error.unavailable
    return retry_unreachable and isinstance(error, Unreachable)


async def call_with_retries(
    call: Callable[[], Awaitable[T]],
    policy: RetryPolicy | None = None,
    *,
    sleep: Sleep = asyncio.sleep,
    random: Random = random_module.random,
) -> T:
    """Await ``call()`` until it succeeds, fails for good, or the policy is used up; then its last error is raised.

    With ``retry_unreachable`` the request may be carried out twice, so the call must bear that: an exact update
    whose first try took effect unseen answers 409 to the second.
    """
    policy = policy or RetryPolicy()
    attempt = 0
    while True:
        try:
            return await call()
        except KubeError as error:
            if attempt + 1 >= policy.attempts or not may_help(error, retry_unreachable=policy.retry_unreachable):
                raise
            asked = error.retry_after if isinstance(error, ApiStatusError) else None
            delay = policy.backoff.delay(attempt, random, asked)
            if delay > policy.longest_delay:
                raise
        attempt += 1
        await sleep(delay)
