"""One queue of 5,000 jobs over 16 ordered options, quota kept: what a queueing system's own benchmark measures.

How it is read: Kueue fills one ClusterQueue whose resource group lists 16 flavors in order, and lets the workloads
run and finish until all are through. Here the queue is that of one quota (a leaf of an ElasticQuotaTree), an option is
a group of `clusterAffinities` with one cluster in it, the first preferred, and a job is a PyTorchJob of 1, 2, 4 or 8
workers with one GPU each, which runs whole in one cluster or not at all. The quota lets in 480 of the fleet's 640
GPUs. 5,000 jobs arrive one by one; then the jobs that run end one by one, in the order in which they began, until the
queue is empty. A decision is a verdict on a job: that it waits, with why and its position, or where it runs. The time
is that of every `decide`, those for the ends and for what victims report gone included, and of the bytes written.

With preemption the jobs have four priorities in a mixed order, and who ranks higher takes the place of who runs.
"""

from __future__ import annotations

import gc
import random
import time
from collections import deque
from collections.abc import Iterable
from cProfile import Profile
from dataclasses import dataclass, field

from benchmarks import steady
from benchmarks.report import Report
from gpufleet.model.cluster import ClusterSpec, FreeBlock, Inventory, NodeClass, SnapshotId
from gpufleet.model.kinds import interpret
from gpufleet.model.manifest import packed
from gpufleet.model.placement import AssignmentState, Observation, ObservedPhase, WorkloadHealth
from gpufleet.model.policy import ClusterAffinity, DivisionType, PriorityClass, PropagationPolicy, ResourceSelector
from gpufleet.model.policy import Placement as PlacementRule
from gpufleet.model.quota import ElasticQuotaTree, Quota
from gpufleet.model.reasons import Verdict
from gpufleet.model.resources import resources
from gpufleet.model.workload import Workload
from services.scheduler.core import State, decide
from services.scheduler.core.events import (
    ClusterRegistered,
    Event,
    InventoryChanged,
    Observed,
    PolicyChanged,
    Started,
    WorkloadDeleted,
    WorkloadSubmitted,
)
from services.scheduler.core.outputs import Outputs
from services.scheduler.core.settings import Settings

JOBS = 5_000
OPTIONS = 16
NODES = 5
QUOTA = 480
RANKS = {"low": 10, "mid": 20, "high": 30, "urgent": 40}
_GPU = "nvidia.com/gpu"
_SIZES = (1, 2, 4, 8)


def measure(report: Report) -> None:
    """Measures the queue without and with preemption."""
    for ranked, goal in ((False, ">= 10,000"), (True, ">= 3,000")):
        name = f"scheduler: a queue of {JOBS:,} jobs, {OPTIONS} options{', preemption' if ranked else ''}"
        drained = Drain(ranked=ranked)
        drained.run()
        report.add(f"{name}: decisions", drained.decisions / sum(drained.seconds), "per s", goal)
        report.latencies(f"{name}: a decision", drained.each)
        report.add(f"{name}: jobs through", JOBS / sum(drained.seconds), "per s")
        if ranked:
            report.add(f"{name}: jobs evicted", drained.evicted, "jobs")


def _job(number: int, rank: str) -> Workload:
    spec = {
        "containers": [
            {
                "name": "pytorch",
                "image": "registry.example/team/train:1.0.0",
                "args": ["--epochs", "10"],
                "resources": {"requests": {"cpu": "8", "memory": "32Gi"}, "limits": {_GPU: "1"}},
            }
        ]
    }
    if rank:
        spec["priorityClassName"] = rank  # type: ignore[assignment]
    made = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": f"train-{number:05d}", "namespace": "bench"},
        "spec": {
            "pytorchReplicaSpecs": {
                "Worker": {"replicas": _SIZES[number % len(_SIZES)], "template": {"spec": spec}},
            }
        },
    }
    uid = f"00000000-0000-4000-8000-{number:012d}"
    return packed(interpret(made, uid=uid, version=number + 1, arrival=number + 1))


def _fleet(ranked: bool) -> list[Event]:
    names = steady.cluster_names(OPTIONS)
    groups = tuple(ClusterAffinity(f"option-{i}", (name,)) for i, name in enumerate(names))
    rule = PropagationPolicy(
        name="all",
        namespace="bench",
        selectors=(ResourceSelector("kubeflow.org/v1", "PyTorchJob"),),
        placement=PlacementRule(groups=groups, prioritized=True, division=DivisionType.DYNAMIC),
        digest="all",
    )
    total = ((_GPU, QUOTA),)
    tree = ElasticQuotaTree("eq", Quota("root", total, total, children=(Quota("team", total, total, ("bench",)),)))
    events: list[Event] = [Started(1, "log"), PolicyChanged(rule), PolicyChanged(tree)]
    if ranked:
        events += [PolicyChanged(PriorityClass(name, value)) for name, value in RANKS.items()]
    for name in names:
        free = (FreeBlock(NODES, resources(steady.NODE)),)
        node_class = NodeClass("a100", resources(steady.NODE), NODES, (("gpu", "a100"),), free=free)
        snapshot = Inventory(name, SnapshotId("uid-" + name, 1, 1), steady.NOW, node_classes=(node_class,))
        events += [ClusterRegistered(ClusterSpec(name, provider="idc")), InventoryChanged(snapshot)]
    return events


@dataclass
class Drain:
    """A queue that fills and empties. ``seconds`` are the times of all calls, ``each`` those per decision made."""

    ranked: bool = False
    state: State = field(init=False)
    seconds: list[float] = field(default_factory=list)
    each: list[float] = field(default_factory=list)
    decisions: int = 0
    evicted: int = 0
    profile: Profile | None = None
    _running: deque[str] = field(default_factory=deque)
    _finished: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = State(Settings())
        decide(self.state, _fleet(self.ranked), steady.NOW)

    def run(self) -> None:
        """Lets every job arrive, and run to its end."""
        ranks = (
            [name for i, name in enumerate(RANKS) for _ in range(JOBS // len(RANKS))] if self.ranked else [""] * JOBS
        )
        random.Random(42).shuffle(ranks)
        jobs = [_job(number, ranks[number]) for number in range(JOBS)]
        gc.collect()
        gc.freeze()
        for workload in jobs:
            self._step([WorkloadSubmitted(workload)])
        done = 0
        while self._running:
            key = self._running.popleft()
            placement = self.state.entries[key].placement
            if placement is None or placement.verdict is not Verdict.SCHEDULED or self._leaving(key):
                continue  # it was evicted meanwhile; when it runs again it is noted again
            self._step(self._reports(key, ObservedPhase.APPLIED, WorkloadHealth.SUCCEEDED))
            self._finished.append(key)
            done += 1
            if done % 100 == 0:
                self._forget()
        if done != JOBS or len(self.state.queue):
            raise RuntimeError(f"{done} jobs ran to their end, expected {JOBS}")

    def _leaving(self, key: str) -> bool:
        known = self.state.entries[key].assignments.values()
        return not any(a.state is AssignmentState.ACTIVE for a in known)

    def _step(self, events: list[Event]) -> None:
        out = self._timed(events)
        removed = [
            Observed(Observation(w.workload, w.cluster, w.version, ObservedPhase.GONE, "uid-" + w.cluster))
            for w in out.assignments
            if w.assignment is not None and w.assignment.state is AssignmentState.REMOVING
        ]
        if removed:
            self.evicted += len(removed)
            self._timed(removed)

    def _timed(self, events: Iterable[Event]) -> Outputs:
        if self.profile is not None:
            self.profile.enable()
        begun = time.perf_counter()
        out = decide(self.state, list(events), steady.NOW)
        steady.encoded(out)
        took = time.perf_counter() - begun
        if self.profile is not None:
            self.profile.disable()
        self.seconds.append(took)
        made = 0
        for write in out.placements:
            if write.placement is not None and write.placement.verdict is not Verdict.FINISHED:
                made += 1
                if write.placement.verdict is Verdict.SCHEDULED:
                    self._running.append(write.workload)
        self.decisions += made
        self.each += [took / made] * made if made else []
        used = self.state.quotas.leaf("team")
        if used is None or used.used.get(_GPU, 0) > QUOTA:
            raise RuntimeError("the quota was not kept")
        return out

    def _reports(self, key: str, phase: ObservedPhase, health: WorkloadHealth) -> list[Event]:
        known = sorted(self.state.entries[key].assignments.items())
        return [Observed(Observation(key, c, a.version, phase, "uid-" + c, health=health, ready=1)) for c, a in known]

    def _forget(self) -> None:
        """Deletes what has finished, as its producer would; not timed."""
        decide(self.state, [WorkloadDeleted(key) for key in self._finished], steady.NOW)
        for key in self._finished:
            decide(self.state, self._reports(key, ObservedPhase.GONE, WorkloadHealth.UNKNOWN), steady.NOW)
        self._finished.clear()
