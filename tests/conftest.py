"""Choice of backends, and the fixtures that more than one folder of tests needs."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from gpufleet.model import kinds
from tests.support import brokers, clusters, selection, stacks


def pytest_configure(config: pytest.Config) -> None:
    if selection.wants_real_parts(config):
        os.environ["GPUFLEET_E2E"] = "1"


def pytest_report_header(config: pytest.Config) -> list[str]:
    e2e = "run" if selection.wants_real_parts(config) else "left out (make e2e runs them)"
    return [f"backends: broker={brokers.chosen()}, clusters={clusters.chosen()}; tests on real parts: {e2e}"]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave ``tests/e2e`` alone unless asked for: not even its imports are paid."""
    if collection_path == selection.TESTS / "e2e" and not selection.wants_real_parts(config):
        return True
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    selection.longest_first(items)
    if selection.wants_real_parts(config):
        selection.mark_real(items)
        return
    left_out = [item for item in items if selection.needs_real_parts(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not selection.needs_real_parts(item)]
    selection.give_time(items)


def pytest_collection_finish() -> None:
    """What has been collected stays to the end: no garbage collection has to look at it."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    if session.config.option.collectonly or not any(item.get_closest_marker("e2e") for item in session.items):
        return
    try:
        selection.prepare_real_parts()
    except RuntimeError as error:
        pytest.exit(f"the real parts cannot be prepared: {error}", returncode=1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell of a test that took too long where its tasks wait."""
    report = yield
    if call.excinfo is not None and "from pytest-timeout" in str(call.excinfo.value):
        report.sections.append(("tasks that have not ended", stacks.pending_tasks()))
    return report


@pytest.fixture(autouse=True)
def _kinds_as_before() -> Iterator[None]:
    """What is declared for the process, by a command or a service in it, is not declared for the next test."""
    with kinds.declaring(()):
        yield


@pytest.fixture(scope="session")
def broker() -> Iterator[brokers.Broker]:
    """The broker of this session, see :mod:`tests.support.brokers`."""
    with brokers.open_broker(brokers.chosen()) as opened:
        yield opened
