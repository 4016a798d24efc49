"""Metrics: names, views of state, one registry per service."""

from __future__ import annotations

import asyncio
import time

import pytest
from prometheus_client import generate_latest

from gpufleet.telemetry.metrics import Metrics, values
from tests.support.waiting import eventually


def text(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def test_names_and_build() -> None:
    metrics = Metrics("scheduler")
    metrics.counter("decisions", "Decisions", ("verdict",)).labels("Scheduled").inc(2)
    metrics.histogram("decide_seconds", "Time to decide").observe(0.02)
    assert 'gpufleet_scheduler_decisions_total{verdict="Scheduled"} 2.0' in text(metrics)
    assert 'gpufleet_scheduler_decide_seconds_bucket{le="0.025"} 1.0' in text(metrics)
    assert 'gpufleet_scheduler_build_info{python="3.' in text(metrics)


def test_view_follows_the_state_and_series_disappear_with_it() -> None:
    metrics = Metrics("inventory")
    state: dict[str, float] = {}
    metrics.gauge_of("free_gpus", "Free GPUs", lambda: values(state), ("cluster",))
    assert "gpufleet_inventory_free_gpus{" not in text(metrics)
    state["c1"] = 8
    assert 'gpufleet_inventory_free_gpus{cluster="c1"} 8.0' in text(metrics)
    state.clear()
    assert "gpufleet_inventory_free_gpus{" not in text(metrics)


def test_registration_reads_nothing() -> None:
    def read() -> list[tuple[tuple[str, ...], float]]:
        raise AssertionError("too early")

    Metrics("x").gauge_of("y", "Y", read)


def test_same_name_twice_is_an_error() -> None:
    metrics = Metrics("x")
    metrics.gauge_of("y", "Y", list)
    with pytest.raises(ValueError, match="Duplicated"):
        metrics.gauge("y", "Y")


async def test_loop_lag_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpufleet.telemetry.metrics._LAG_INTERVAL", 0.01)
    metrics = Metrics("x")
    task = asyncio.create_task(metrics.watch_loop())
    await asyncio.sleep(0)
    time.sleep(0.1)  # noqa: ASYNC251  a callback that blocks the loop
    await eventually(lambda: metrics.loop_lag > 0.05, "the lag to be seen", every=0)
    task.cancel()
    assert metrics.loop_lag < 5.0
