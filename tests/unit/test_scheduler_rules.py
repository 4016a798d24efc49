"""The rules that keep the log true, as far as the core upholds them: each interleaving driven step by step."""

from __future__ import annotations

from dataclasses import replace

from gpufleet.model.cluster import ComponentPods, Health, WorkloadPods
from gpufleet.model.placement import (
    AssignmentState,
    ClusterCap,
    ClusterShare,
    Eviction,
    FailureClass,
    ObservedPhase,
    Placement,
    Slot,
    Version,
    WorkloadHealth,
)
from gpufleet.model.policy import DivisionType
from gpufleet.model.reasons import Verdict
from services.scheduler.core.events import (
    AssignmentRead,
    ClusterRemoved,
    Evicted,
    PlacementRead,
    PodsChanged,
    RescheduleRequested,
    Scaled,
    Tick,
    WorkloadDeleted,
    WorkloadSubmitted,
    WorkloadUnreadable,
)
from tests.support.scheduling import World, deployment, gpus_free, job, node_class, policy

LLM = "test/Deployment/llm"
TWO = "test/Deployment/two"
TRAIN = "test/PyTorchJob/train"


def world_of(**clusters: int) -> World:
    world = World()
    world.clusters(**clusters)
    return world


def evict(world: World, key: str, *caps: tuple[str, int], judged: Version | None = None, **rest: object) -> None:
    """The rescheduler takes replicas back, by default judging the last placement."""
    version = world.placement(key).version if judged is None else judged
    bounds = tuple(ClusterCap(c, k, world.now + 300, "Pending", "pods were unschedulable") for c, k in caps)
    world.feed(Evicted(Eviction(key, version, bounds, at=world.now, **rest)))  # type: ignore[arg-type]


# Rule 3: reservations.


def test_room_is_held_until_the_inventory_shows_the_pods() -> None:
    world = world_of(a=4)
    world.submit(deployment(replicas=3), policy())
    world.submit(deployment("two", 3))
    assert world.assigned(TWO) == {"a": 1}
    # Two pods are bound: the snapshot shows two nodes less, and a third is still held for each workload.
    world.snapshot("a", gpus_free(1, 1, 0, 0), bound={LLM: 2})
    assert world.placement(TWO).unplaced == 2
    # All of the first are bound; the free GPU is the second's, which holds it.
    world.snapshot("a", gpus_free(1, 0, 0, 0), bound={LLM: 3})
    assert world.placement(TWO).unplaced == 2
    world.snapshot("a", gpus_free(1, 1, 0, 0), bound={LLM: 3})
    assert world.assigned(TWO) == {"a": 2}


def test_finished_pods_hold_nothing() -> None:
    world = world_of(a=2)
    world.submit(job(components={"Worker": (2, 1)}), policy())
    world.submit(deployment("two", 2))
    assert world.assigned(TWO) == {}
    world.feed(PodsChanged(WorkloadPods("a", TRAIN, components=(("Worker", ComponentPods(finished=2)),))))
    assert world.assigned(TWO) == {"a": 2}


def test_what_no_longer_fits_is_a_debt_and_the_cluster_shows_nothing() -> None:
    world = World()
    world.clusters(a=[gpus_free(1, 1, name="t4"), node_class("cpu", nodes=4, allocatable={"cpu": 8000, "pods": 10})])
    world.submit(deployment(replicas=2), policy())
    # A node of the class is lost while the pods are on their way.
    cpu = node_class("cpu", nodes=4, allocatable={"cpu": 8000, "pods": 10})
    world.observe("a", gpus_free(1, name="t4"), cpu)
    world.submit(deployment("two", 1, gpu=0))
    assert world.placement(TWO).verdict is Verdict.UNSCHEDULABLE
    assert world.message(TWO, "a").startswith("1 pods that were placed here before do not fit any more")
    # The debt is paid when the pods are bound.
    world.bind(LLM, "a", main=2)
    assert world.assigned(TWO) == {"a": 1}


def test_a_permanent_refusal_ends_the_hold_and_the_cluster_is_avoided() -> None:
    world = world_of(a=2, b=2)
    world.submit(deployment(replicas=2), policy(["a"], ["b"]))
    world.observed(LLM, "a", ObservedPhase.REFUSED, code="DispatchRefused", message="admission denied it")
    assert world.assigned(LLM) == {"b": 2}
    assert world.codes(LLM)["a"] == "DispatchRefused"
    assert world.message(LLM, "a") == "admission denied it"
    world.submit(deployment("two", 2))
    assert world.assigned(TWO) == {"a": 2}
    # The refusal is remembered in the placement when the observation has changed, until the submission changes.
    world.gone(LLM, "a")
    world.feed(Scaled(LLM, 3))
    assert "a" not in world.assigned(LLM)


def test_a_hold_ends_after_its_time_out() -> None:
    world = world_of(a=1)
    world.submit(deployment(), policy())
    world.submit(deployment("two"))
    assert world.placement(TWO).verdict is Verdict.UNSCHEDULABLE
    world.now += 899
    world.refresh()
    world.feed(Tick())
    assert world.placement(TWO).verdict is Verdict.UNSCHEDULABLE
    world.now += 1
    world.refresh()
    world.feed(Tick())
    assert world.assigned(TWO) == {"a": 1}


def test_pods_waiting_for_a_node_that_is_being_created_are_no_debt() -> None:
    world = World()
    world.clusters(a=gpus_free(0, stock=2))
    world.submit(deployment(replicas=2, gpu=8), policy(ecs_provision=True))
    # The instances are ordered: gone from stock, not yet nodes.
    pods = ComponentPods(provisioning=2)
    world.feed(PodsChanged(WorkloadPods("a", LLM, components=(("main", pods),))))
    world.observe("a", gpus_free(0, 1, stock=0))
    world.submit(deployment("two", 1, gpu=1))
    assert world.assigned(TWO) == {"a": 1}
    # Their nodes are ready, the pods are not bound yet: the nodes are theirs.
    world.observe("a", gpus_free(0, 0, 8, 8, stock=0))
    world.bind(TWO, "a", main=1)
    world.submit(deployment("three", 1, gpu=8))
    assert world.placement("test/Deployment/three").verdict is Verdict.UNSCHEDULABLE


def test_holds_are_refitted_in_the_order_of_decisions() -> None:
    world = world_of(a=2)
    world.submit(deployment(replicas=1), policy())
    world.submit(deployment("two", 1))
    world.observe("a", gpus_free(1))
    member = world.state.fleet.members["a"]
    member.settle()
    assert member.debt == 1
    assert member.held[LLM].version < member.held[TWO].version
    assert sum(nodes for free, nodes in member.pools[0].running.items() if free[2]) == 0


# Rule 4: assignments follow from placements.


def test_a_crash_between_placement_and_assignments_is_healed_on_start() -> None:
    world = world_of(a=4)
    out = world.feed(WorkloadSubmitted(deployment(replicas=2)), write=False)
    out = world.submit(deployment(replicas=2, version=1), policy())
    world.assignments.clear()
    before = world.placement(LLM)
    out = world.restart()
    assert out.placements == []
    assert [(a.cluster, a.version) for a in out.assignments] == [("a", before.version)]
    assert world.assignment(LLM, "a").components == (("main", 2),)


def test_other_inputs_than_recorded_are_decided_anew_on_start() -> None:
    world = world_of(a=4)
    world.submit(deployment(replicas=2), policy())
    world.assignments.clear()
    out = world.restart(WorkloadSubmitted(deployment(replicas=3, version=2)))
    assert [p.workload for p in out.placements] == [LLM]
    assert world.assigned(LLM) == {"a": 3}
    assert world.assignment(LLM, "a").version == world.placement(LLM).version


def test_a_restart_on_the_same_tables_writes_nothing() -> None:
    world = world_of(a=4, b=1, c=0)
    world.submit(deployment(replicas=3), policy(["a"], ["b"]))
    world.submit(deployment("two", 9))
    world.submit(deployment("three", 1, gpu=4))
    world.submit(job())
    world.submit(deployment("copies", 2, kind="StatefulSet"))
    world.feed(WorkloadDeleted("test/StatefulSet/copies"))
    out = world.restart()
    assert out.placements == []
    assert out.assignments == []


# Rule 5: a stale writer cannot win.


def test_an_overwritten_placement_is_written_again() -> None:
    world = world_of(a=4)
    world.submit(deployment(replicas=2), policy())
    world.restart()
    known = world.placement(LLM)
    stale = replace(known, version=Version(0, 7), shares=(ClusterShare("z", (("main", 2),)),))
    out = world.feed(PlacementRead(LLM, stale.version, stale))
    assert [(p.version, p.placement) for p in out.placements] == [(known.version, known)]


def test_a_stale_record_that_looks_newer_is_overtaken_under_the_own_epoch() -> None:
    world = world_of(a=4)
    world.submit(deployment(replicas=2), policy())
    world.restart()
    known = world.placement(LLM)
    assert known.version.epoch == 1
    stale = replace(known, version=Version(1, 99), shares=())
    world.feed(PlacementRead(LLM, stale.version, stale))
    assert world.placement(LLM).version > stale.version
    assert world.assigned(LLM) == {"a": 2}


def test_an_assignment_of_a_stale_writer_is_taken_back() -> None:
    world = world_of(a=4, b=4)
    world.submit(deployment(replicas=2), policy(["a"]))
    world.restart()
    stray = replace(world.assignment(LLM, "a"), cluster="b", version=Version(1, 50))
    world.feed(AssignmentRead(LLM, "b", stray.version, stray))
    assert world.states(LLM) == {"a": "Active", "b": "Removing"}
    assert world.assignment(LLM, "b").version > stray.version
    world.gone(LLM, "b")
    assert world.states(LLM) == {"a": "Active"}


def test_an_overwritten_or_deleted_assignment_is_written_again() -> None:
    world = world_of(a=4)
    world.submit(deployment(replicas=2), policy())
    world.restart()
    known = world.assignment(LLM, "a")
    out = world.feed(AssignmentRead(LLM, "a", Version(0, 1), None))
    assert [a.assignment for a in out.assignments] == [known]


def test_a_resurrected_placement_of_a_deleted_workload_is_deleted_again() -> None:
    world = world_of(a=4)
    world.submit(deployment(replicas=2), policy())
    stale = replace(world.placement(LLM), version=Version(0, 3))
    world.feed(WorkloadDeleted(LLM))
    world.gone(LLM, "a")
    world.feed(PlacementRead(LLM, stale.version, stale))
    assert world.placements[LLM][1] is None


def test_echoes_change_nothing() -> None:
    world = world_of(a=4)
    world.submit(deployment(replicas=2), policy())
    echo = world.placement(LLM)
    work = world.assignment(LLM, "a")
    world.feed(Scaled(LLM, 3))
    out = world.feed(PlacementRead(LLM, echo.version, echo), AssignmentRead(LLM, "a", work.version, work))
    assert out.placements == []
    assert out.assignments == []


def test_a_higher_epoch_ends_the_term() -> None:
    world = world_of(a=4)
    world.submit(deployment(replicas=2), policy())
    theirs = replace(world.placement(LLM), version=Version(9, 1))
    out = world.feed(PlacementRead(LLM, theirs.version, theirs), WorkloadSubmitted(deployment("two")))
    assert out.deposed_by == 9
    assert out.placements == []
    assert world.state.entries[LLM].placement == theirs
    assert world.feed(Tick()).placements == []


def test_the_truth_is_the_highest_version_among_placement_assignments_and_observations() -> None:
    world = world_of(a=4, b=4)
    world.submit(deployment(replicas=3), policy(["a"], ["b"]))
    first = world.placements[LLM]
    world.feed(Scaled(LLM, 6))
    assert world.assigned(LLM) == {"a": 4, "b": 2}
    # Compaction has kept the stale placement; the assignments say what was decided last.
    world.placements[LLM] = first
    world.restart()
    assert world.assigned(LLM) == {"a": 4, "b": 2}
    assert world.placement(LLM).version.epoch == 2


def test_a_job_is_found_where_an_observation_of_a_higher_version_saw_it() -> None:
    world = world_of(a=2, b=2)
    world.submit(job(), policy())
    assert world.assigned(TRAIN) == {"a": 2}
    world.observed(TRAIN, "a")
    world.placements.clear()
    world.assignments.clear()
    world.restart()
    assert world.assigned(TRAIN) == {"a": 2}
    assert world.states(TRAIN) == {"a": "Active"}


# Rule 6: absence deletes nothing.


def test_a_missing_submission_is_orphaned_and_its_copies_stay() -> None:
    world = world_of(a=4)
    world.submit(deployment(replicas=2), policy())
    world.inputs = [e for e in world.inputs if not isinstance(e, WorkloadSubmitted)]
    out = world.restart()
    assert world.placement(LLM).verdict is Verdict.ORPHANED
    assert world.assigned(LLM) == {"a": 2}
    assert out.assignments == []
    assert world.restart().placements == []
    # Submitted again, it is adopted; deleted, it goes.
    world.submit(deployment(replicas=2))
    assert world.placement(LLM).verdict is Verdict.SCHEDULED
    assert world.states(LLM) == {"a": "Active"}


def test_a_deletion_is_kept_until_every_cluster_reports_gone() -> None:
    world = world_of(a=1, b=1)
    world.submit(deployment(replicas=2), policy())
    world.feed(WorkloadDeleted(LLM))
    assert world.placement(LLM).verdict is Verdict.DELETING
    assert world.states(LLM) == {"a": "Removing", "b": "Removing"}
    assert world.message(LLM) == "every cluster has to report its copy gone: a, b"
    world.gone(LLM, "a")
    assert world.placement(LLM).verdict is Verdict.DELETING
    assert world.states(LLM) == {"b": "Removing"}
    # A crash here, with the submission's tombstone compacted away, changes nothing.
    world.inputs = [e for e in world.inputs if not isinstance(e, WorkloadSubmitted | WorkloadDeleted)]
    world.restart()
    assert world.placement(LLM).verdict is Verdict.DELETING
    # Cluster a is asked once more, because nothing says that it was done; that is harmless.
    world.gone(LLM, "a")
    world.gone(LLM, "b")
    assert world.placements[LLM][1] is None
    assert world.states(LLM) == {}
    assert LLM not in world.state.entries or world.state.entries[LLM].placement is None


def test_a_gone_of_an_older_version_does_not_count() -> None:
    world = world_of(a=2)
    world.submit(deployment(replicas=2), policy())
    old = world.assignments[LLM, "a"][0]
    world.feed(WorkloadDeleted(LLM))
    world.gone(LLM, "a", version=old)
    assert world.states(LLM) == {"a": "Removing"}


def test_deleting_the_template_may_leave_the_copies() -> None:
    world = world_of(a=2, b=2)
    world.submit(deployment(replicas=2), policy(["a"], preserve_on_deletion=True))
    world.feed(WorkloadDeleted(LLM))
    assert world.assignment(LLM, "a").orphan
    # A mere move leaves nothing behind.
    world.submit(deployment("two", 2))
    evict(world, TWO, ("a", 0))
    assert not world.assignment(TWO, "a").orphan
    assert not world.assignment(TWO, "a").preserve_on_deletion


def test_a_record_that_cannot_be_read_counts_as_present_after_a_restart() -> None:
    world = world_of(a=2)
    world.submit(deployment(replicas=2), policy())
    world.inputs = [e for e in world.inputs if not isinstance(e, WorkloadSubmitted)]
    out = world.restart(WorkloadUnreadable(LLM, "not JSON"))
    assert world.placement(LLM).verdict is Verdict.SCHEDULED
    assert world.codes(LLM) == {"": "InvalidRecord"}
    assert out.assignments == []


def test_a_missing_registration_takes_nothing_away() -> None:
    world = world_of(a=2)
    world.submit(deployment(replicas=2), policy(["a"]))
    world.inputs = [e for e in world.inputs if type(e).__name__ != "ClusterRegistered"]
    out = world.restart()
    assert world.assigned(LLM) == {"a": 2}
    assert out.assignments == []


def test_a_new_uid_means_delete_then_create() -> None:
    world = world_of(a=4)
    world.submit(deployment(replicas=2, uid="one"), policy())
    world.submit(deployment(replicas=3, uid="two", version=1))
    assert world.placement(LLM).verdict is Verdict.DELETING
    assert world.states(LLM) == {"a": "Removing"}
    assert world.assignment(LLM, "a").uid == "one"
    world.restart()
    assert world.states(LLM) == {"a": "Removing"}
    world.gone(LLM, "a")
    assert world.assigned(LLM) == {"a": 3}
    assert world.assignment(LLM, "a").uid == "two"
    assert world.states(LLM) == {"a": "Active"}


def test_a_workload_deleted_and_submitted_again_waits_for_its_old_copies() -> None:
    world = world_of(a=4)
    world.submit(deployment(replicas=2), policy())
    world.feed(WorkloadDeleted(LLM))
    removal = world.assignments[LLM, "a"][0]
    world.submit(deployment(replicas=2, version=2))
    assert world.states(LLM) == {"a": "Removing"}
    world.gone(LLM, "a")
    assert world.states(LLM) == {"a": "Active"}
    assert world.assignments[LLM, "a"][0] > removal


# Rule 8: never two live copies of a job.


def test_a_moved_job_waits_until_its_old_copy_is_reported_gone() -> None:
    world = world_of(a=2, b=2)
    world.submit(job(), policy(["a"], ["b"]))
    world.observed(TRAIN, "a")
    evict(world, TRAIN, ("a", 0))
    assert world.assigned(TRAIN) == {"b": 2}
    assert world.states(TRAIN) == {"a": "Removing", "b": "Waiting"}
    removal = world.assignment(TRAIN, "a")
    assert [(w.cluster, w.version) for w in world.assignment(TRAIN, "b").waits_for] == [("a", removal.version)]
    assert world.placement(TRAIN).leaving == ("a",)
    # A gone of the version before the removal says nothing; nor does one of another incarnation.
    world.gone(TRAIN, "a", version=Version(1, 1))
    assert world.states(TRAIN)["b"] == "Waiting"
    waiting = world.assignments[TRAIN, "b"][0]
    world.restart()
    assert world.states(TRAIN) == {"a": "Removing", "b": "Waiting"}
    world.gone(TRAIN, "a")
    assert world.states(TRAIN) == {"b": "Active"}
    assert world.assignments[TRAIN, "b"][0] > waiting
    assert world.placement(TRAIN).leaving == ()


def test_a_new_cluster_under_the_old_name_knows_nothing_of_the_copy() -> None:
    world = World()
    world.clusters(a=2, b=2)
    world.observe("a", gpus_free(1, 1), incarnation="old")
    world.submit(job(), policy(["a"], ["b"]))
    assert world.assignment(TRAIN, "a").incarnation == "old"
    evict(world, TRAIN, ("a", 0))
    world.observe("a", gpus_free(1, 1), incarnation="new")
    world.gone(TRAIN, "a", incarnation="new")
    assert world.states(TRAIN)["b"] == "Waiting"
    # Taking the cluster out of the fleet is the operator's word that its copies are gone.
    world.feed(ClusterRemoved("a"))
    assert world.states(TRAIN) == {"b": "Active"}


def test_a_replaced_cluster_inherits_nothing_but_gets_its_replicas_ordered_anew() -> None:
    world = World()
    world.clusters(a=2)
    world.observe("a", gpus_free(1, 1), incarnation="old")
    world.submit(deployment(replicas=2), policy())
    version = world.assignments[LLM, "a"][0]
    world.observe("a", gpus_free(1, 1), incarnation="new")
    assert world.assignment(LLM, "a").incarnation == "new"
    assert world.assignments[LLM, "a"][0] > version


def test_a_job_does_not_come_back_to_a_cluster_that_still_holds_its_copy() -> None:
    world = world_of(a=2, b=2)
    world.submit(job(), policy(["a"], ["b"]))
    evict(world, TRAIN, ("a", 0))
    world.now += 400  # the cap on a has expired, its copy is not gone yet
    world.refresh()
    evict(world, TRAIN, ("b", 0))
    assert world.assigned(TRAIN) == {}
    assert world.codes(TRAIN)["a"] == "WaitingForRemoval"
    assert world.states(TRAIN) == {"a": "Removing", "b": "Removing"}
    world.gone(TRAIN, "a")
    assert world.states(TRAIN) == {"a": "Waiting", "b": "Removing"}
    world.gone(TRAIN, "b")
    assert world.states(TRAIN) == {"a": "Active"}


def test_a_deployment_does_not_wait() -> None:
    world = world_of(a=2, b=2)
    world.submit(deployment(replicas=2), policy(["a"], ["b"]))
    evict(world, LLM, ("a", 0))
    assert world.states(LLM) == {"a": "Removing", "b": "Active"}


def test_a_crash_after_the_placement_of_a_move_still_removes_the_first_copy() -> None:
    world = world_of(a=2, b=2)
    world.submit(job(), policy(["a"], ["b"]))
    version = world.placement(TRAIN).version
    out = world.feed(
        Evicted(Eviction(TRAIN, version, (ClusterCap("a", 0, 9999.0, "Pending"),), at=world.now)), write=False
    )
    world.write(out, assignments=False)
    world.restart()
    assert world.states(TRAIN) == {"a": "Removing", "b": "Waiting"}


# Evictions and ends.


def test_an_eviction_applies_once_and_only_to_the_version_that_it_judged() -> None:
    world = world_of(a=4, b=4)
    world.submit(deployment(replicas=4), policy(["a"], ["b"]))
    stale = world.placement(LLM).version
    world.feed(Scaled(LLM, 3))
    evict(world, LLM, ("a", 1), judged=stale)
    assert world.assigned(LLM) == {"a": 3}
    # But its cap bounds what may be added there.
    world.feed(Scaled(LLM, 5))
    assert world.assigned(LLM) == {"a": 3, "b": 2}
    evict(world, LLM, ("a", 1))
    assert world.assigned(LLM) == {"a": 1, "b": 4}
    version = world.placement(LLM).version
    assert world.restart().placements == []
    assert world.placement(LLM).version == version


def test_a_cap_ends() -> None:
    world = world_of(a=4)
    world.submit(deployment(replicas=4), policy())
    evict(world, LLM, ("a", 2))
    assert world.assigned(LLM) == {"a": 2}
    assert world.codes(LLM)["a"] == "ClusterAvoided"
    while world.now < 1300:
        assert world.assigned(LLM) == {"a": 2}
        at = world.last.wake_at
        assert at is not None
        world.now = at
        world.refresh()
        world.feed(Tick())
    assert world.assigned(LLM) == {"a": 4}


def test_a_lost_cluster_releases_its_replicas() -> None:
    world = world_of(a=4, b=4)
    world.submit(deployment(replicas=4), policy(["a"], ["b"]))
    world.observe("a", health=Health.UNREACHABLE)
    assert world.assigned(LLM) == {"a": 4}
    evict(world, LLM, ("a", 0))
    assert world.assigned(LLM) == {"b": 4}
    # It comes back: nothing moves by itself, and the old copies go.
    world.observe("a", gpus_free(1, 1, 1, 1))
    assert world.assigned(LLM) == {"b": 4}
    assert world.states(LLM) == {"a": "Removing", "b": "Active"}


def test_back_off_and_giving_up() -> None:
    world = world_of(a=2)
    world.submit(job(), policy())
    evict(world, TRAIN, ("a", 0), not_before=world.now + 10, attempts=1)
    assert world.placement(TRAIN).verdict is Verdict.QUEUED
    assert world.codes(TRAIN)[""] == "BackingOff"
    world.gone(TRAIN, "a")
    assert world.last.wake_at == 1010.0
    world.now = 1010.0
    world.feed(Tick())
    assert world.placement(TRAIN).verdict is Verdict.UNSCHEDULABLE  # the cap still avoids the only cluster
    world.now = 1300.0
    world.refresh()
    world.feed(Tick())
    assert world.assigned(TRAIN) == {"a": 2}
    evict(world, TRAIN, ("a", 0), give_up=True, attempts=3)
    assert world.placement(TRAIN).verdict is Verdict.GIVEN_UP
    assert world.states(TRAIN) == {"a": "Removing"}
    world.now = 5000.0
    world.refresh()
    world.restart()
    assert world.placement(TRAIN).verdict is Verdict.GIVEN_UP
    world.gone(TRAIN, "a")
    world.feed(WorkloadSubmitted(job(digest="again", version=5)))
    assert world.assigned(TRAIN) == {"a": 2}


def test_a_finished_job_holds_nothing_and_stays_finished() -> None:
    world = world_of(a=2)
    world.submit(job(), policy())
    world.observed(TRAIN, "a", health=WorkloadHealth.SUCCEEDED)
    assert world.placement(TRAIN).verdict is Verdict.FINISHED
    assert world.states(TRAIN) == {"a": "Active"}
    world.submit(deployment("two", 2))
    assert world.assigned(TWO) == {"a": 2}
    out = world.submit(job(version=7))
    assert out.placements == []
    assert world.restart().placements == []


def test_only_a_failure_of_its_own_ends_a_job() -> None:
    world = world_of(a=2)
    world.submit(job(), policy())
    world.observed(TRAIN, "a", health=WorkloadHealth.FAILED, failure=FailureClass.INFRASTRUCTURE)
    assert world.placement(TRAIN).verdict is Verdict.SCHEDULED
    world.observed(TRAIN, "a", health=WorkloadHealth.FAILED, failure=FailureClass.USER, message="exit code 1")
    assert world.placement(TRAIN).verdict is Verdict.FAILED
    assert world.message(TRAIN, "a") == "exit code 1"


def test_a_placement_read_from_a_document_counts_its_bound_pods() -> None:
    # What `gpufleet get fleet | gpufleet plan` feeds: shares without slots, and pods that are bound.
    world = world_of(a=4)
    world.submit(deployment(replicas=4), policy())
    placement = replace(world.placement(LLM), shares=(ClusterShare("a", (("main", 4),)),))
    world.placements[LLM] = (placement.version, placement)
    pods = PodsChanged(WorkloadPods("a", LLM, components=(("main", ComponentPods(bound=3)),)))
    world.restart(pods, WorkloadSubmitted(deployment("two", 4)))
    assert world.assigned(LLM) == {"a": 4}
    assert world.assigned(TWO) == {"a": 3}


def test_a_placement_read_from_a_document_moves_nothing_by_itself() -> None:
    world = world_of(a=4, b=4)
    world.submit(deployment(replicas=2, uid="u1"), policy(["a"], ["b"]))
    version = Version(1, 9)
    document = Placement(
        LLM, version, Verdict.SCHEDULED, 2, (ClusterShare("b", (("main", 2),)),), policy="PropagationPolicy/test/pp"
    )
    world.assignments.clear()
    world.placements[LLM] = (version, document)
    world.restart()
    assert world.assigned(LLM) == {"b": 2}
    # Other replicas than the document says: poured anew.
    world.assignments.clear()
    world.placements[LLM] = (version, replace(document, replicas=1))
    world.restart()
    assert world.assigned(LLM) == {"a": 2}
    # Finished stays finished.
    world.placements[LLM] = (version, replace(document, verdict=Verdict.FINISHED))
    world.assignments.clear()
    assert world.restart().placements == []


def test_static_surplus_is_placed_and_holds_only_what_there_is() -> None:
    world = world_of(a=2)
    world.submit(deployment(replicas=5), policy(division=DivisionType.STATIC))
    share = world.placement(LLM).shares[0]
    assert share.slots == (Slot("main", "gpu", 2), Slot("main", "", 3))
    world.state.fleet.members["a"].settle()
    assert world.state.fleet.members["a"].debt == 0


def test_reschedule_of_a_job_moves_it_only_to_a_better_group() -> None:
    world = world_of(a=0, b=2)
    world.submit(job(), policy(["a"], ["b"]))
    assert world.assigned(TRAIN) == {"b": 2}
    bound = (("Master", ComponentPods(bound=1)), ("Worker", ComponentPods(bound=1)))
    world.feed(PodsChanged(WorkloadPods("b", TRAIN, components=bound)))
    world.observe("b", gpus_free(0, 0))
    world.feed(RescheduleRequested(TRAIN))
    assert world.assigned(TRAIN) == {"b": 2}
    world.observe("a", gpus_free(1, 1))
    assert world.assigned(TRAIN) == {"b": 2}
    world.feed(RescheduleRequested(TRAIN))
    assert world.states(TRAIN) == {"a": "Waiting", "b": "Removing"}
    assert world.assignment(TRAIN, "a").state is AssignmentState.WAITING
