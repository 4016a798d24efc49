"""A fleet lived through at random: submissions, scaling, evictions, inventories, dispatchers and restarts.

Never: more pods than there is room for, a submission without a placement, a job with two live copies, different
outputs for the same inputs, or a restart that changes something. The caches always equal a recomputation.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gpufleet.model.cluster import ComponentPods, Health, WorkloadPods
from gpufleet.model.placement import AssignmentState, ClusterCap, Eviction, Version
from gpufleet.model.reasons import Verdict
from gpufleet.model.workload import Workload
from services.scheduler.core.decide import decide
from services.scheduler.core.events import (
    Event,
    Evicted,
    InventoryChanged,
    PlacementRead,
    PodsChanged,
    PolicyChanged,
    Scaled,
    Started,
    Tick,
    WorkloadDeleted,
    WorkloadSubmitted,
)
from services.scheduler.core.outputs import Outputs
from services.scheduler.core.reserve import refit
from services.scheduler.core.settings import Settings
from services.scheduler.core.state import State
from tests.support.scheduling import World, deployment, gpus_free, inventory, job, policy

CLUSTERS = ("a", "b", "c", "d")
NODES = {"a": 3, "b": 5, "c": 2, "d": 6}
# Nothing ages here: what time does is tested step by step.
PATIENT = Settings(stale_after=1e12, hold_timeout=1e12)


class Fleet(RuleBasedStateMachine):
    """Every pod asks for one GPU and every node has one, so that room is a number."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(PATIENT)
        self.twin = State(PATIENT)
        self.workloads: dict[str, Workload] = {}
        self.bound: dict[tuple[str, str], dict[str, int]] = {}  # (workload, cluster) to bound pods by component
        self.copies: dict[str, set[str]] = {}
        self.counter = 0
        decide(self.twin, [Started(1, "log")], self.world.now)

    def feed(self, *events: Event) -> Outputs:
        self.world.now += 0.5
        out = self.world.feed(*events)
        again = decide(self.twin, events, self.world.now)
        assert out.placements == again.placements
        assert out.assignments == again.assignments
        assert out.wake_at == again.wake_at
        return out

    @initialize()
    def register(self) -> None:
        self.world.clusters(**NODES)
        decide(self.twin, self.world.inputs, self.world.now)
        self.feed(
            PolicyChanged(policy(["a", "b"], ["c"], kinds=(("apps/v1", "Deployment"),), name="tiers")),
            PolicyChanged(policy(kinds=(("kubeflow.org/v1", "PyTorchJob"), ("apps/v1", "StatefulSet")), name="rest")),
        )

    def fresh(self) -> int:
        self.counter += 1
        return self.counter

    @rule(name=st.sampled_from("xyz"), replicas=st.integers(0, 9), kind=st.sampled_from(["Deployment", "StatefulSet"]))
    def submit_service(self, name: str, replicas: int, kind: str) -> None:
        n = self.fresh()
        workload = deployment(name, replicas, kind=kind, arrival=n, version=n, digest=f"{name}{n}")
        self.workloads[workload.key] = workload
        self.feed(WorkloadSubmitted(workload))

    @rule(name=st.sampled_from("jkl"), workers=st.integers(1, 5), anew=st.booleans())
    def submit_job(self, name: str, workers: int, anew: bool) -> None:
        n = self.fresh()
        known = self.workloads.get(f"test/PyTorchJob/{name}")
        uid = f"{name}{n}" if anew or known is None else known.uid
        workload = job(name, {"Master": (1, 1), "Worker": (workers, 1)}, arrival=n, version=n, uid=uid, digest=str(n))
        self.workloads[workload.key] = workload
        self.feed(WorkloadSubmitted(workload))

    @precondition(lambda self: self.workloads)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.workloads)))
        del self.workloads[key]
        self.feed(WorkloadDeleted(key, self.fresh()))

    @precondition(lambda self: self.workloads)
    @rule(data=st.data(), replicas=st.none() | st.integers(0, 12))
    def scale(self, data: st.DataObject, replicas: int | None) -> None:
        self.feed(Scaled(data.draw(st.sampled_from(sorted(self.workloads))), replicas))

    @precondition(lambda self: self.workloads)
    @rule(data=st.data(), cluster=st.sampled_from(CLUSTERS), left=st.integers(0, 3), stale=st.booleans())
    def evict(self, data: st.DataObject, cluster: str, left: int, stale: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.workloads)))
        placement = self.world.placement(key)
        judged = Version(0, 1) if stale else placement.version
        cap = ClusterCap(cluster, 0 if placement.job else left, self.world.now + 5, "Pending")
        self.feed(Evicted(Eviction(key, judged, (cap,), at=self.world.now)))

    @rule(cluster=st.sampled_from(CLUSTERS), healthy=st.booleans())
    def health(self, cluster: str, healthy: bool) -> None:
        self.publish(cluster, Health.READY if healthy else Health.UNREACHABLE)

    @rule()
    def time_passes(self) -> None:
        at = self.world.last.wake_at
        if at is not None and at < PATIENT.hold_timeout:
            self.world.now = max(self.world.now, at)
        self.feed(Tick())

    @precondition(lambda self: self.world.assignments)
    @rule(data=st.data())
    def dispatch(self, data: st.DataObject) -> None:
        """A dispatcher does what the topic says, and its cluster binds every pod that it may."""
        key, cluster = data.draw(st.sampled_from(sorted(self.world.assignments)))
        assignment = self.world.assignments[key, cluster][1]
        if assignment is None:
            return
        if assignment.state is AssignmentState.ACTIVE:
            self.copies.setdefault(key, set()).add(cluster)
            self.bound[key, cluster] = dict(assignment.components)
            self.publish(cluster)
            self.world.observed(key, cluster)
        elif assignment.state is AssignmentState.REMOVING:
            self.copies.setdefault(key, set()).discard(cluster)
            self.bound.pop((key, cluster), None)
            self.publish(cluster)
            self.world.gone(key, cluster)
        else:
            return
        decide(self.twin, [self.world.inputs[-1]], self.world.now)

    def publish(self, cluster: str, health: Health = Health.READY) -> None:
        """Publishes a whole snapshot: free blocks, and the pods of every workload that ever had some there."""
        used = sum(sum(pods.values()) for (_, c), pods in self.bound.items() if c == cluster)
        free = [1] * (NODES[cluster] - used) + [0] * used
        events: list[Event] = []
        for key in sorted({w for w, c in self.world.assignments if c == cluster}):
            pods = self.bound.get((key, cluster), {})
            components = tuple((name, ComponentPods(bound=count)) for name, count in sorted(pods.items()))
            events.append(PodsChanged(WorkloadPods(cluster, key, components=components)))
        snapshot = inventory(cluster, gpus_free(*free), at=self.world.now, health=health)
        self.feed(*events, InventoryChanged(snapshot))

    @precondition(lambda self: self.world.placements)
    @rule(data=st.data())
    def stale_writer(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.world.placements)))
        known = self.world.placements[key][1]
        if known is not None and known.version > Version(0, 5):
            stale = replace(known, version=Version(0, 5), shares=())
            self.feed(PlacementRead(key, stale.version, stale))

    @rule()
    def restart(self) -> None:
        """Another instance takes over from the topics alone, and finds nothing to do."""
        before = {k: p for k, (_, p) in self.world.placements.items()}
        out = self.world.restart()
        after = {k: p for k, (_, p) in self.world.placements.items()}
        assert {k: p and p.shares for k, p in before.items()} == {k: p and p.shares for k, p in after.items()}
        assert {k: p and p.verdict for k, p in before.items()} == {k: p and p.verdict for k, p in after.items()}
        # A removal that was confirmed may be asked for once more, if the decision has changed since.
        written = [a.assignment for a in out.assignments if a.assignment is not None]
        assert [a for a in written if a.state is not AssignmentState.REMOVING] == []
        self.twin = State(PATIENT)
        decide(self.twin, self.world.started_from, self.world.now)

    @invariant()
    def nothing_is_lost(self) -> None:
        for key in self.workloads:
            placement = self.world.placement(key)
            assert placement.placed + placement.unplaced == placement.replicas

    @invariant()
    def never_more_than_there_is_room_for(self) -> None:
        for name in CLUSTERS:
            if name not in self.world.state.fleet.members:
                continue
            placed = 0
            for key, (_, placement) in self.world.placements.items():
                share = placement.share(name) if placement is not None else None
                here = dict(share.components) if share is not None else {}
                # What is still bound there occupies its node until the snapshot says otherwise.
                still = self.bound.get((key, name), {})
                placed += sum(max(here.get(c, 0), still.get(c, 0)) for c in here.keys() | still.keys())
            assert placed <= NODES[name], (name, placed)
            member = self.world.state.fleet.members[name]
            member.settle()
            assert member.debt == 0

    @invariant()
    def a_job_lives_in_one_cluster_only(self) -> None:
        for key, clusters in self.copies.items():
            if "PyTorchJob" in key:
                assert len(clusters) <= 1, (key, clusters)
        for key in {w for w, _ in self.world.assignments if "PyTorchJob" in w}:
            states = list(self.world.states(key).values())
            assert states.count("Active") + states.count("Waiting") <= 1
            assert "Active" not in states or "Removing" not in states

    @invariant()
    def jobs_are_placed_whole_or_not_at_all(self) -> None:
        for key, (_, placement) in self.world.placements.items():
            if placement is not None and "PyTorchJob" in key:
                assert len(placement.shares) <= 1
                if placement.verdict is Verdict.SCHEDULED:
                    assert placement.placed == self.workloads[key].replicas

    @invariant()
    def caches_equal_a_recomputation(self) -> None:
        fleet = self.world.state.fleet
        for workload in self.workloads.values():
            shape = fleet.catalog.shape(workload.components[0].shape)
            column = fleet.column(shape)
            for member in fleet.by_index:
                assert (column.running[member.index], column.stock[member.index]) == member.counts(shape)
        for member in fleet.by_index:
            member.settle()
            blocks = [dict(pool.running) for pool in member.pools]
            refit(member)
            assert [dict(pool.running) for pool in member.pools] == blocks


Fleet.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
)
TestFleet = Fleet.TestCase
