"""Which tests run: those on real parts only when asked for.

``make e2e`` sets ``GPUFLEET_E2E``; ``-m e2e`` does the same. Then ``tests/e2e`` runs, and the conformance suites,
which otherwise run on the embedded broker and simulated clusters, run on the real parts.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
REAL_TIMEOUT = 300
SOCKETS_TIMEOUT = 180  # what waits for others takes longer on a busy machine; each wait has its own limit

# The files that take longest, in the order in which workers of pytest-xdist (`--dist loadfile --no-loadscope-reorder`)
# take them up: those that keep both cores busy apart from each other, with those that mostly wait between them.
FIRST = (
    "integration/test_system_restarts.py",
    "integration/test_dispatcher_service.py",
    "conformance/test_bus_ownership.py",
    "conformance/test_bus_service.py",
    "conformance/test_bus_dlq.py",
    "integration/test_cli_live.py",
    "conformance/test_bus_paused_leader.py",
    "integration/test_cli_up.py",
    "integration/test_system_flow.py",
    "integration/test_dispatcher_faults.py",
)


def wants_real_parts(config: pytest.Config) -> bool:
    """Whether this session is to run on Apache Kafka and real control planes."""
    expression = str(config.getoption("markexpr", default="") or "")
    asked = "e2e" in expression and "not e2e" not in expression
    return asked or bool(os.environ.get("GPUFLEET_E2E"))


def mark_real(items: list[pytest.Item]) -> None:
    """Mark what runs on real parts, and give it the time that starting them takes."""
    for item in items:
        if _folder(item) in {"e2e", "conformance"}:
            item.add_marker(pytest.mark.e2e)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(REAL_TIMEOUT))


def give_time(items: list[pytest.Item]) -> None:
    """Let the waits of tests over sockets end first: they say what was waited for."""
    for item in items:
        if _folder(item) in {"integration", "conformance"} and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SOCKETS_TIMEOUT))


def needs_real_parts(item: pytest.Item) -> bool:
    """Whether a test runs on nothing else."""
    return _folder(item) == "e2e" or item.get_closest_marker("e2e") is not None


def longest_first(items: list[pytest.Item]) -> None:
    """Put the files that take longest at the beginning, so that none of them is left when all others are done."""
    rank = {TESTS / name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""


def prepare_real_parts() -> None:
    """Fetch and build what the real parts need, before the first test's clock runs."""
    from tests.support import kafka, kube_build

    kafka.fetch()
    kube_build.programs()
