"""Dispatchers that work on one workload in any interleaving of their looks and requests."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gpufleet.kube.fencing import Stamp, stamp_of
from gpufleet.model.placement import Assignment, ObservedPhase
from services.dispatcher.core.steps import Done, Superseded
from tests.support import manifests
from tests.support.hands import LOG, Hand, assigned, batch_job, member, removal
from tests.support.simulation import Simulation

KINDS = {"Deployment": manifests.deployment(1), "Job": batch_job(1), "SparkApplication": manifests.spark()}
kinds = st.sampled_from(sorted(KINDS))
turns = st.lists(st.integers(0, 2), max_size=40)


def found(sim: Simulation, assignment: Assignment) -> dict[str, Any] | None:
    namespace, kind, name = assignment.workload.split("/")
    return sim.drive.view.get(assignment.manifest["apiVersion"], kind, namespace, name)


def half_step(hand: Hand) -> None:
    """Looks, or sends what was decided."""
    if hand.step is None or isinstance(hand.step, Done | Superseded):
        hand.look()
    else:
        hand.act()


@settings(max_examples=40, deadline=None)
@given(kind=kinds, turns=turns)
def test_the_latest_decision_is_what_remains(kind: str, turns: list[int]) -> None:
    sim = member()
    versions = [(1, 1), (1, 2), (2, 1)]
    hands = [Hand(sim, assigned(KINDS[kind], version=version)) for version in versions]
    for turn in turns:
        half_step(hands[turn])
    for hand in hands:
        if hand.step is not None and not isinstance(hand.step, Done | Superseded):
            hand.act()
    hands[2].run()
    for hand in hands[:2]:
        assert hand.run() is None
    live = found(sim, hands[2].assignment)
    assert live is not None
    assert stamp_of(live) == Stamp(LOG, 2, 1)
    assert len(live["metadata"].get("ownerReferences") or ()) == int(kind != "Deployment")


@settings(max_examples=40, deadline=None)
@given(kind=kinds, before=st.integers(0, 12), turns=turns)
def test_a_removal_leaves_nothing(kind: str, before: int, turns: list[int]) -> None:
    """One dispatcher lost the cluster: it may still send the one request that it was about to; two others remove."""
    sim = member()
    active = assigned(KINDS[kind])
    late = Hand(sim, active)
    for _ in range(before):
        half_step(late)
    pending = late.step is not None and not isinstance(late.step, Done | Superseded)
    removers = [Hand(sim, removal(active, version)) for version in ((1, 9), (2, 1))]
    for turn in turns:
        if turn < 2:
            half_step(removers[turn])
        elif pending:
            late.act()
            pending = False
    for hand in removers:
        if hand.step is not None and not isinstance(hand.step, Done | Superseded):
            hand.act()
    if pending:
        late.act()
    done = removers[1].run()
    assert done is not None
    assert done.phase is ObservedPhase.GONE
    sim.wait(1.0)
    assert found(sim, active) is None
    assert sim.pods("test") == []
