"""Health checks: each by name, none can break the others."""

from __future__ import annotations

import asyncio

import pytest

from gpufleet.telemetry import health
from gpufleet.telemetry.health import Health


async def test_no_checks_are_fine() -> None:
    assert await Health().ready() == (True, {"status": "ok", "checks": {}})


async def test_ready_says_which_check_fails_and_why() -> None:
    checks = Health()

    async def kafka() -> str | None:
        return "Kafka does not answer"

    def broken() -> str | None:
        raise KeyError("x")

    checks.add_live("loop", lambda: None)
    checks.add_ready("kafka", kafka)
    checks.add_ready("broken", broken)
    assert await checks.live() == (True, {"status": "ok", "checks": {"loop": "ok"}})
    fine, body = await checks.ready()
    assert not fine
    assert body == {
        "status": "failing",
        "checks": {"broken": "the check failed: KeyError('x')", "kafka": "Kafka does not answer", "loop": "ok"},
    }


async def test_check_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_TIMEOUT", 0.01)
    checks = Health()

    async def hangs() -> str | None:
        await asyncio.Event().wait()
        return None

    checks.add_ready("slow", hangs)
    assert (await checks.ready())[1]["checks"] == {"slow": "no answer within 0.01 s"}
