"""Field selectors of the simulated API."""

from __future__ import annotations

from typing import Any

import pytest

from sim.api.selectors import FieldSelector


@pytest.mark.parametrize(
    ("event", "selected"),
    [
        ({"source": {"component": "GOATScaler"}}, True),
        ({"reportingComponent": "GOATScaler"}, True),
        ({"source": {"component": "kubelet"}, "reportingComponent": "GOATScaler"}, False),
        ({}, False),
    ],
)
def test_the_source_of_an_event_is_its_component(event: dict[str, Any], selected: bool) -> None:
    assert FieldSelector.parse("source=GOATScaler").matches({"kind": "Event", **event}) is selected
