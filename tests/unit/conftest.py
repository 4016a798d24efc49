"""Unit tests of the scheduler's core make every decision again from its record."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.decisions import same_again
from tests.support.scheduling import World


@pytest.fixture(autouse=True, scope="module")
def every_decision_is_made_again() -> Iterator[None]:
    """A decision that depends on what its record lacks fails the test that it is made in."""
    World.watch = same_again
    yield
    World.watch = None
