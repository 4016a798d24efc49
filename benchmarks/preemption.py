"""Who has to yield: one search for room over 100 clusters in use, with 20,000 victims to choose from.

Every cluster has 100 nodes of 8 GPUs in four classes. On each node one GPU is somebody's whom nobody may preempt; the
others are held by 200 workloads of three lower priorities: 100 Deployments of 5 replicas, which lose replicas, and 100
PyTorchJobs of 2 workers, which go whole, all with one GPU per pod. So 700 GPUs of a cluster could be made free, but
never a whole node. What comes then, in turn, and ranks higher than all of them:

- found: a job of 64 workers, for which every cluster could make room;
- ruled out by sums: a job of 750 workers, more than any cluster could make free;
- failing by fragmentation: a job of 86 workers with 8 GPUs each, for which there would be GPUs, but no whole nodes;
- partial: a Deployment of 2,000 replicas, some of which one cluster can take.

Each of these once as long as the pods have not been bound, so that only reservations tell of them, and once when all of
them are bound, each to another node than the last, and the inventory tells on which.

What is timed is the search, from who wants room to who yields where. Beside it the whole `decide` is given, with
everything that follows: what is evicted looks for another place. What was found is not undone, so every round finds
others; nothing is kept from one decision to the next but who could yield.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from cProfile import Profile
from dataclasses import dataclass, field
from unittest.mock import patch

from benchmarks import steady
from benchmarks.report import Report
from gpufleet.model.cluster import (
    ClusterSpec,
    ComponentPods,
    FreeBlock,
    Inventory,
    NodeClass,
    NodePods,
    SnapshotId,
    WorkloadPods,
)
from gpufleet.model.policy import ClusterAffinity, DivisionType, PriorityClass, PropagationPolicy, ResourceSelector
from gpufleet.model.policy import Placement as PlacementRule
from gpufleet.model.resources import Resources, resources
from gpufleet.model.workload import Component, Division, PodShape, Workload
from services.scheduler.core import State, decide, takeover
from services.scheduler.core.draft import Draft
from services.scheduler.core.events import (
    ClusterRegistered,
    Event,
    InventoryChanged,
    PodsChanged,
    PolicyChanged,
    Started,
    WorkloadDeleted,
    WorkloadSubmitted,
)
from services.scheduler.core.losses import Preemption
from services.scheduler.core.outputs import Outputs
from services.scheduler.core.settings import Settings

CLUSTERS = 100
VICTIMS = 20_000
ROUNDS = 20
GOAL = "<= 20 ms"
_GPU = "nvidia.com/gpu"
_RANKS = {"low": -20, "lower": -10, "mid": 0, "high": 100}
_CLASSES = ("a10", "a100", "h20", "l20")


def measure(report: Report) -> None:
    """Measures each outcome of a search."""
    for bound in (False, True):
        fleet = Crowded(bound=bound)
        told = ", pods bound" if bound else ""
        for name in CASES:
            fleet.run(name)
            report.latencies(f"scheduler: a preemption search, {name}{told}", fleet.searches[name], GOAL)
            report.latencies(f"scheduler: a preemption, {name}{told}, whole decision", fleet.decisions[name])
        del fleet
        gc.unfreeze()


def _workload(name: str, namespace: str, rank: str, replicas: int, gpus: int, arrival: int, *, job: bool) -> Workload:
    shape = PodShape(resources({"pods": 1, "cpu": 8_000 * gpus, "memory": gpus * 2**35, _GPU: gpus}))
    components = [Component("Worker" if job else "main", replicas, shape)]
    if job and gpus > 1:
        components.insert(0, Component("Master", 1, PodShape(resources({"pods": 1, "cpu": 4_000, _GPU: 1}))))
    kind, api = ("PyTorchJob", "kubeflow.org/v1") if job else ("Deployment", "apps/v1")
    return Workload(
        key=f"{namespace}/{kind}/{name}",
        api_version=api,
        kind=kind,
        namespace=namespace,
        name=name,
        components=tuple(components),
        division=Division.WHOLE if job else Division.REPLICAS,
        job=job,
        uid=name,
        arrival=arrival,
        version=arrival,
        digest=name,
        priority_class=rank,
    )


def _wanted(replicas: int, gpus: int, *, job: bool) -> Callable[[int], Workload]:
    def made(number: int) -> Workload:
        name = f"wanted-{replicas}-{gpus}-{number}"
        return _workload(name, "bench", "high", replicas, gpus, VICTIMS + number, job=job)

    return made


CASES: Mapping[str, Callable[[int], Workload]] = {
    "found": _wanted(64, 1, job=True),
    "ruled out by sums": _wanted(750, 1, job=True),
    "failing by fragmentation": _wanted(86, 8, job=True),
    "partial": _wanted(200, 4, job=False),
}


def _policy(namespace: str, *clusters: str) -> PropagationPolicy:
    return PropagationPolicy(
        name="all",
        namespace=namespace,
        selectors=(ResourceSelector("apps/v1", "Deployment"), ResourceSelector("kubeflow.org/v1", "PyTorchJob")),
        placement=PlacementRule(
            groups=(ClusterAffinity("group", clusters),) if clusters else (), division=DivisionType.DYNAMIC
        ),
        digest=namespace,
    )


def _inventory(cluster: str) -> Inventory:
    nodes = steady.NODES // len(_CLASSES)
    free = (FreeBlock(nodes, resources({**steady.NODE, _GPU: steady.GPUS_PER_NODE - 1})),)
    classes = tuple(NodeClass(name, resources(steady.NODE), nodes, (("gpu", name),), free=free) for name in _CLASSES)
    return Inventory(cluster, SnapshotId("uid-" + cluster, 1, 1), steady.NOW, node_classes=classes)


def _bound(state: State, cluster: str) -> Iterator[Event]:
    """Yields what the inventory shows of a cluster when all of its pods are bound."""
    free = dict.fromkeys(range(1, steady.NODES + 1), steady.GPUS_PER_NODE - 1)
    each, at = steady.NODES // len(_CLASSES), 0
    for key in sorted(state.on_cluster[cluster], key=lambda key: key[::-1]):  # who came together is apart
        placement = state.entries[key].placement
        share = placement.share(cluster) if placement is not None else None
        components = []
        for name, pods in share.components if share is not None else ():
            nodes = []
            for _ in range(pods):
                at = next(n for n in (1 + (at + i) % steady.NODES for i in range(1, steady.NODES + 1)) if free[n])
                free[at] -= 1
                nodes.append(NodePods(_CLASSES[(at - 1) // each], at, 1))
            components.append((name, ComponentPods(bound=pods, ready=pods, nodes=tuple(nodes))))
        yield PodsChanged(WorkloadPods(cluster, key, components=tuple(components)))
    classes = []
    for place, name in enumerate(_CLASSES):
        blocks: dict[int, list[int]] = {}
        for number in range(place * each + 1, (place + 1) * each + 1):
            blocks.setdefault(free[number], []).append(number)
        left = tuple(FreeBlock(len(n), _left(gpus), numbers=tuple(n)) for gpus, n in sorted(blocks.items()))
        classes.append(NodeClass(name, resources(steady.NODE), each, (("gpu", name),), free=left))
    snapshot = SnapshotId("uid-" + cluster, 1, 2)
    yield InventoryChanged(Inventory(cluster, snapshot, steady.NOW, node_classes=tuple(classes)))


def _left(gpus: int) -> Resources:
    taken = steady.GPUS_PER_NODE - 1 - gpus
    asked = {"cpu": 8_000, "memory": 2**35, "pods": 1}
    return resources({_GPU: gpus} | {name: steady.NODE[name] - amount * taken for name, amount in asked.items()})


@dataclass
class Crowded:
    """A fleet in use. ``searches`` are the times of the searches, ``decisions`` those of the arrivals, by case."""

    bound: bool = False
    state: State = field(init=False)
    searches: dict[str, list[float]] = field(default_factory=dict)
    decisions: dict[str, list[float]] = field(default_factory=dict)
    profile: Profile | None = None

    def __post_init__(self) -> None:
        self.state = State(Settings())
        names = steady.cluster_names(CLUSTERS)
        events: list[Event] = [Started(1, "log"), PolicyChanged(_policy("bench"))]
        events += [PolicyChanged(PriorityClass(name, value)) for name, value in _RANKS.items()]
        for name in names:
            events += [ClusterRegistered(ClusterSpec(name)), InventoryChanged(_inventory(name))]
            events.append(PolicyChanged(_policy(name, name)))
        decide(self.state, events, steady.NOW)
        ranks = [name for name in _RANKS if name != "high"]
        each = VICTIMS // CLUSTERS
        for place, name in enumerate(names):
            arrivals = [
                WorkloadSubmitted(
                    _workload(
                        f"there-{place}-{i}",
                        name,
                        ranks[(place + i // 2) % len(ranks)],
                        2 if i % 2 else 5,
                        1,
                        place * each + i + 1,
                        job=bool(i % 2),
                    )
                )
                for i in range(each)
            ]
            decide(self.state, arrivals, steady.NOW)
        if len(self.state.queue):
            raise RuntimeError(f"{len(self.state.queue)} victims found no room")
        if self.bound:
            for name in names:
                decide(self.state, list(_bound(self.state, name)), steady.NOW)
        # Who may yield is looked at when somebody asks for the first time; this is not what is measured.
        self.state.victims.catch_up(self.state)
        gc.collect()
        gc.freeze()

    def run(self, case: str) -> None:
        """Lets the preemptors of a case come, one by one."""
        times = self.decisions.setdefault(case, [])
        for number in range(ROUNDS):
            workload = CASES[case](number)
            if self.profile is not None:
                self.profile.enable()
            begun = time.perf_counter()
            with _search_timed(workload.key, self.searches.setdefault(case, [])):
                out = decide(self.state, [WorkloadSubmitted(workload)], steady.NOW)
            steady.encoded(out)
            times.append(time.perf_counter() - begun)
            if self.profile is not None:
                self.profile.disable()
            _check(self.state, case, workload, out)
            if case not in ("found", "partial"):
                decide(self.state, [WorkloadDeleted(workload.key)], steady.NOW)


@contextmanager
def _search_timed(key: str, times: list[float]) -> Iterator[None]:
    """Notes how long the search on behalf of a workload takes."""
    real = takeover.search

    def timed(draft: Draft, placed: int, missing: int, *, at_once: bool) -> Preemption | None:
        begun = time.perf_counter()
        found = real(draft, placed, missing, at_once=at_once)
        if draft.entry.key == key:
            times.append(time.perf_counter() - begun)
        return found

    with patch.object(takeover, "search", timed):
        yield


def _check(state: State, case: str, workload: Workload, out: Outputs) -> None:
    placement = state.entries[workload.key].placement
    placed = placement.placed if placement is not None else 0
    wanted = {"found": placed == workload.replicas, "partial": 0 < placed < workload.replicas}.get(case, placed == 0)
    if not wanted or bool(out.counters.get("preemptions")) is not (case in ("found", "partial")):
        raise RuntimeError(f"{case}: {placed} of {workload.replicas} have a place")
