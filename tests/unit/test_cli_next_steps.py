"""What `explain` says would help."""

from __future__ import annotations

import pytest

from gpufleet.cli.show import next_steps
from gpufleet.model.explanations import REASONS
from gpufleet.model.placement import Observation, ObservedPhase, Placement, Version
from gpufleet.model.reasons import Code, Reason, Verdict

KEY = "test/PyTorchJob/train"
LOWER = Reason(Code.HIGHER_GROUP_TOOK_ALL, "not needed", "b")


def reported(code: str) -> Observation:
    return Observation(KEY, "a", Version(1, 1), ObservedPhase.PENDING, code=code)


@pytest.mark.parametrize(
    ("reasons", "replicas", "seen", "steps"),
    [
        pytest.param([LOWER], 0, [], [], id="placed and well"),
        pytest.param([LOWER], 0, ["ClusterReplaced"], [Code.CLUSTER_REPLACED], id="placed, and its cluster is another"),
        pytest.param([LOWER], 0, ["ImagePullBackOff"], [Code.HIGHER_GROUP_TOOK_ALL], id="a word of the cluster's own"),
        pytest.param(
            [Reason(Code.NEVER_FITS, "needs 9", "b")],
            1,
            ["Conflict"],
            [Code.CONFLICT, Code.NEVER_FITS],
            id="what clusters report goes first",
        ),
        pytest.param([LOWER], 0, ["Frozen", "Frozen"], [Code.FROZEN], id="once"),
    ],
)
def test_next_steps(reasons: list[Reason], replicas: int, seen: list[str], steps: list[Code]) -> None:
    placement = Placement(KEY, Version(1, 1), Verdict.SCHEDULED, reasons=tuple(reasons), replicas=replicas)
    assert placement.unplaced == replicas
    assert next_steps(placement, [reported(code) for code in seen]) == [REASONS[code].remedy for code in steps]


def test_the_smallest_change_that_would_help_goes_before_general_advice() -> None:
    reason = Reason(Code.NEVER_FITS, "needs 9", "b", needs="ask for 8 instead")
    placement = Placement(KEY, Version(1, 1), Verdict.UNSCHEDULABLE, reasons=(reason,), replicas=1)
    assert next_steps(placement, []) == ["ask for 8 instead"]
