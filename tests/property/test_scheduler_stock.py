"""What is counted on nodes to be created is really there when an autoscaler creates them, and no node too many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from gpufleet.model.cluster import ComponentPods, NodeClass, WorkloadPods
from services.scheduler.core.events import InventoryChanged, PodsChanged
from services.scheduler.core.settings import Settings
from tests.support.scheduling import GPU, World, deployment, inventory, node_class, policy

SIZE = 8
CLUSTERS = ("a", "b")


@dataclass
class Cluster:
    """A cluster as it is: free GPUs of running nodes, of nodes on their way, and how many more there may be."""

    stock: int
    free: list[int]
    coming: list[int] = field(default_factory=list)
    # By workload: pods on running nodes, and the nodes on their way (by index) that others wait for.
    bound: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, list[int]] = field(default_factory=dict)

    def node_class(self) -> NodeClass:
        """What inventory publishes of it."""
        return node_class(free=[{GPU: count} for count in self.free], nodes=0, stock=self.stock)


@dataclass
class Member:
    """A scheduler's world with clusters whose schedulers and autoscalers do what it counts on."""

    world: World
    clusters: dict[str, Cluster]
    sizes: dict[str, int] = field(default_factory=dict)

    def work(self, name: str, *, come: bool) -> None:
        """Binds what can run, brings nodes that are on their way if they ``come``, and orders what is missing."""
        cluster = self.clusters[name]
        if come:
            arrived = len(cluster.free)
            cluster.free += [SIZE] * len(cluster.coming)
            for key, nodes in cluster.waiting.items():
                for node in nodes:
                    cluster.free[arrived + node] -= self.sizes[key]
                cluster.bound[key] = cluster.bound.get(key, 0) + len(nodes)
            cluster.coming, cluster.waiting = [], {}
        for key, (_, placement) in sorted(self.world.placements.items(), key=lambda item: item[1][0]):
            share = placement.share(name) if placement is not None else None
            there = cluster.bound.get(key, 0) + len(cluster.waiting.get(key, ()))
            for _ in range(there, share.replicas if share is not None else 0):
                self._start(cluster, key)
        keys = sorted(cluster.bound.keys() | cluster.waiting.keys())
        pods = [(k, ComponentPods(cluster.bound.get(k, 0), provisioning=len(cluster.waiting.get(k, ())))) for k in keys]
        self.world.feed(
            *(PodsChanged(WorkloadPods(name, key, components=(("main", main),))) for key, main in pods),
            InventoryChanged(inventory(name, cluster.node_class(), at=self.world.now)),
        )

    def _start(self, cluster: Cluster, key: str) -> None:
        need = self.sizes[key]
        running = [(free, i) for i, free in enumerate(cluster.free) if free >= need]
        if running:
            cluster.free[min(running)[1]] -= need
            cluster.bound[key] = cluster.bound.get(key, 0) + 1
            return
        rests = [(rest, i) for i, rest in enumerate(cluster.coming) if rest >= need]
        if not rests:
            assert cluster.stock > 0, f"a pod of {key} was counted on a node that there is not"
            cluster.stock -= 1
            cluster.coming.append(SIZE)
            rests = [(SIZE, len(cluster.coming) - 1)]
        cluster.coming[min(rests)[1]] -= need
        cluster.waiting.setdefault(key, []).append(min(rests)[1])

    def submit(self, name: str, replicas: int, gpu: int, groups: Sequence[Sequence[str]]) -> None:
        """Submits a workload; it begins no node as long as there is room on those that run or come."""
        key = f"test/Deployment/{name}"
        self.sizes[key] = gpu
        members = self.world.state.fleet.members
        workload = deployment(name, replicas, gpu=gpu, uid=name, arrival=len(self.sizes))
        shape = self.world.state.fleet.catalog.shape(workload.components[0].shape)
        there = sum(members[c].counts(shape)[0] + members[c].room_coming(shape) for c in CLUSTERS)
        before = self._begun()
        self.world.submit(workload, policy(*groups, ecs_provision=True, existing_capacity_first=True))
        if there >= replicas:
            assert self.world.placement(key).placed == replicas
            assert self._begun() == before, "a node was begun although others had room"

    def _begun(self) -> list[int]:
        return [pool.stock.fresh for member in self.world.state.fleet.by_index for pool in member.pools]

    def check(self) -> None:
        """Nothing is owed, and what was counted on stock is no more than there is."""
        for name, cluster in self.clusters.items():
            member = self.world.state.fleet.members[name]
            member.settle()
            assert member.debt == 0
            [pool] = member.pools
            assert 0 <= pool.stock.fresh <= cluster.stock
            assert all(0 <= pool.layout.gpus(rest) <= SIZE for rest in pool.stock.coming)


CLUSTER = st.builds(Cluster, st.integers(0, 3), st.lists(st.integers(0, SIZE), max_size=2))
STEP = st.one_of(
    st.tuples(st.just("submit"), st.integers(1, 9), st.sampled_from([1, 1, 2, 3, 4, 8])),
    st.tuples(st.just("submit"), st.integers(1, 9), st.sampled_from([1, 2, 3])),
    st.tuples(st.just("work"), st.sampled_from(CLUSTERS), st.booleans()),
)


@given(CLUSTER, CLUSTER, st.lists(STEP, max_size=10), st.sampled_from([(), (("a",), ("b",))]))
@settings(deadline=None, max_examples=60)
def test_promised_nodes_hold_what_was_counted_on_them(
    a: Cluster, b: Cluster, steps: list[tuple[str, int | str, int | bool]], groups: tuple[tuple[str, ...], ...]
) -> None:
    world = World(settings=Settings(stale_after=1e9, hold_timeout=1e9))
    found = Member(world, {"a": a, "b": b})
    for name, cluster in found.clusters.items():
        world.clusters(**{name: cluster.node_class()})
    for number, step in enumerate(steps):
        match step:
            case ("submit", int(replicas), int(gpu)):
                found.submit(f"w{number}", replicas, gpu, groups)
            case ("work", str(name), bool(come)):
                found.work(name, come=come)
        found.check()
    for name in CLUSTERS:
        found.work(name, come=False)
        found.check()
