"""The garbage collector passes over what has settled, in processes of our own only."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from gpufleet.telemetry import memory


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(memory, "_own", False)
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_what_has_settled_is_not_collected_again() -> None:
    memory.own()
    memory.settle()
    assert gc.get_freeze_count() > 1000


def test_a_process_of_somebody_else_is_left_alone() -> None:
    memory.settle()
    assert gc.get_freeze_count() == 0
