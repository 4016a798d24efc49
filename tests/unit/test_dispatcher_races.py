"""Rules 7 and 8: whatever a dispatcher that was stopped half-way sends when it wakes up, it cannot win."""

from __future__ import annotations

from typing import Any

import pytest

from gpufleet.kube.fencing import Stamp, stamp_of
from gpufleet.model import names
from gpufleet.model.placement import Assignment, ObservedPhase, WorkloadHealth
from services.dispatcher.core import render
from services.dispatcher.core.steps import Done, Superseded
from tests.support import manifests
from tests.support.hands import LOG, Hand, assigned, batch_job, member, removal
from tests.support.simulation import Simulation

# A kind that is no job, jobs that start suspended, and jobs that cannot.
KINDS = {
    "Deployment": manifests.deployment(2),
    "Job": batch_job(),
    "PyTorchJob": manifests.pytorch(1),
    "SparkApplication": manifests.spark(),
    "Pod": manifests.pod(),
}


@pytest.fixture(params=sorted(KINDS))
def manifest(request: pytest.FixtureRequest) -> dict[str, Any]:
    chosen: dict[str, Any] = KINDS[request.param]
    return chosen


def found(sim: Simulation, assignment: Assignment) -> dict[str, Any] | None:
    namespace, kind, name = assignment.workload.split("/")
    return sim.drive.view.get(assignment.manifest["apiVersion"], kind, namespace, name)


def running(sim: Simulation, assignment: Assignment) -> list[str]:
    """Names of the workload's pods that have not ended."""
    marked = sim.pods("test", **{names.WORKLOAD_LABEL: names.workload_label(assignment.workload)})
    return [p["metadata"]["name"] for p in marked if p.get("status", {}).get("phase") not in ("Succeeded", "Failed")]


def steps_to_done(manifest: dict[str, Any], *assignments: Assignment) -> list[int]:
    """How many requests each assignment takes, one after the other on one cluster."""
    sim, counts = member(), []
    for assignment in assignments:
        hand = Hand(sim, assignment)
        hand.run()
        counts.append(len(hand.outcomes))
    return counts


def advance(hand: Hand, requests: int) -> None:
    for _ in range(requests):
        hand.look()
        hand.act()


def test_a_late_request_brings_no_copy_back(manifest: dict[str, Any]) -> None:
    """Stalled before its k-th request, woken up after the j-th of the removal; every k and every j."""
    active = assigned(manifest)
    gone = removal(active)
    ups, downs = steps_to_done(manifest, active, gone)
    assert ups >= 1
    assert downs >= 1
    for k in range(ups):
        for j in range(downs + 1):
            sim = member()
            late = Hand(sim, active)
            advance(late, k)
            late.look()
            # Another dispatcher owns the shard now; it has read both assignments and obeys the later one.
            owner = Hand(sim, gone)
            for _ in range(j):
                step = owner.look()
                if isinstance(step, Done):
                    break
                owner.act()
            if j == downs:
                owner.run()
            if not isinstance(late.step, Done):
                late.act()
            # The owner is told of what comes late by its watch, and looks again.
            done = owner.run()
            assert done is not None, (k, j)
            assert done.phase is ObservedPhase.GONE, (k, j)
            sim.wait(1.0)
            assert found(sim, active) is None, (k, j)
            assert running(sim, active) == [], (k, j)


@pytest.mark.parametrize("kind", ["Job", "PyTorchJob", "SparkApplication", "Pod"])
def test_a_late_copy_of_a_job_is_collected(kind: str) -> None:
    """The job may run in another cluster by now, and nobody may be there to look at this one: the fence is enough."""
    active = assigned(KINDS[kind])
    for k in range(1, steps_to_done(KINDS[kind], active)[0]):
        sim = member()
        late = Hand(sim, active)
        advance(late, k)
        late.look()
        Hand(sim, removal(active)).run()
        started: list[str] = []
        sim.store.subscribe(lambda change, started=started: started.append(change.obj["kind"]))  # type: ignore[misc]
        late.act()
        assert found(sim, active) is None, k
        assert running(sim, active) == [], k
        if kind in ("Job", "PyTorchJob"):
            assert "Pod" not in started, k  # what starts suspended does not run for a moment


def test_the_later_of_two_dispatchers_wins(manifest: dict[str, Any]) -> None:
    """Two dispatchers, each with another version, in turns of one half-step each, from every offset."""
    older, newer = assigned(manifest, version=(1, 1)), assigned(manifest, version=(2, 1))
    ups = steps_to_done(manifest, older)[0]
    for offset in range(2 * ups + 1):
        for first in (0, 1):
            sim = member()
            hands = [Hand(sim, older), Hand(sim, newer)]
            for turn in range(offset):
                _half(hands[first], turn)
            for turn in range(40):
                for hand in hands:
                    _half(hand, turn)
            for hand in hands:
                hand.run()
            live = found(sim, newer)
            assert live is not None
            assert stamp_of(live) == Stamp(LOG, 2, 1), (offset, first)
            assert isinstance(Hand(sim, older).look(), Superseded)


def _half(hand: Hand, turn: int) -> None:
    """Looks, or sends what was decided."""
    if hand.step is None or isinstance(hand.step, Done | Superseded):
        hand.look()
    elif turn % 2:
        hand.act()


def test_a_crash_between_any_two_requests_is_healed(manifest: dict[str, Any]) -> None:
    active = assigned(manifest)
    for k in range(steps_to_done(manifest, active)[0] + 1):
        sim = member()
        advance(Hand(sim, active), k)
        fresh = Hand(sim, active)
        done = fresh.run()
        assert done is not None
        assert done.phase is ObservedPhase.APPLIED, k
        sim.wait(5.0)
        assert running(sim, active), k


def test_a_removal_that_crashed_is_finished(manifest: dict[str, Any]) -> None:
    active, gone = assigned(manifest), removal(assigned(manifest))
    for k in range(steps_to_done(manifest, active, gone)[1] + 1):
        sim = member()
        Hand(sim, active).run()
        advance(Hand(sim, gone), k)
        done = Hand(sim, gone).run()
        assert done is not None
        assert done.phase is ObservedPhase.GONE, k
        assert running(sim, active) == []


def test_a_stale_removal_does_not_touch_the_next_copy(manifest: dict[str, Any]) -> None:
    """Decided when v1 was there, sent when v1 is gone and v3 is there."""
    sim = member()
    Hand(sim, assigned(manifest)).run()
    stale = Hand(sim, removal(assigned(manifest), (1, 2)))
    stale.look()
    Hand(sim, removal(assigned(manifest), (1, 2))).run()
    again = assigned(manifest, version=(1, 3))
    Hand(sim, again).run()
    stale.act()
    assert stale.outcomes == ["Delete: lost"]
    assert isinstance(stale.look(), Superseded)
    sim.wait(5.0)
    assert found(sim, again) is not None
    assert running(sim, again)


def test_a_job_starts_only_after_another_look_at_the_fence() -> None:
    active = assigned(batch_job())
    hand = Hand(member(), active)
    hand.run()
    assert hand.outcomes == ["Create: done", "Create: done", "Update: done"]
    sim = member()
    hand = Hand(sim, active)
    advance(hand, 2)
    live = found(sim, active)
    assert live is not None
    assert live["spec"]["suspend"] is True
    assert running(sim, active) == []


def test_gone_is_reported_when_the_last_pod_of_a_job_has_ended() -> None:
    sim, active = member(), assigned(batch_job(stop_seconds="30"))
    Hand(sim, active).run()
    sim.wait(1.0)
    owner = Hand(sim, removal(active))
    while not isinstance(step := owner.look(), Done):
        owner.act()
    assert step.phase is ObservedPhase.PENDING
    assert len(running(sim, active)) == 2
    sim.wait(29.0)
    assert owner.look() != step or running(sim, active)
    sim.wait(2.0)
    assert running(sim, active) == []
    done = owner.run()
    assert done is not None
    assert done.phase is ObservedPhase.GONE


def test_a_job_that_ended_is_not_started_again_when_it_is_swept_away() -> None:
    quick = batch_job(1, run_seconds="1")
    sim, active = member(), assigned(quick)
    hand = Hand(sim, active)
    hand.run()
    sim.wait(5.0)
    done = hand.run()
    assert done is not None
    assert done.health is WorkloadHealth.SUCCEEDED
    sim.delete("batch/v1", "Job", "x", "test")
    assert found(sim, active) is None
    # Not under its version, nor under a later one that changes how it was decided.
    for version in ((1, 1), (1, 2)):
        again = Hand(sim, assigned(quick, version=version), last=hand.last)
        done = again.run()
        assert done is not None
        assert (done.health, again.outcomes) == (WorkloadHealth.SUCCEEDED, [])
    # After a removal it is another run.
    owner = Hand(sim, removal(active))
    owner.run()
    once_more = Hand(sim, assigned(quick, version=(1, 10)), last=owner.last)
    once_more.run()
    assert found(sim, active) is not None


def test_a_job_whose_fence_was_taken_away_is_started_anew() -> None:
    sim, active = member(), assigned(batch_job())
    hand = Hand(sim, active)
    hand.run()
    before = found(sim, active)
    sim.delete("v1", "ConfigMap", render.fence_name(active.workload), "test")
    hand.run()
    after = found(sim, active)
    assert before is not None
    assert after is not None
    assert before["metadata"]["uid"] != after["metadata"]["uid"]
    sim.wait(1.0)
    assert len(running(sim, active)) == 2
