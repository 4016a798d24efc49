"""Clusters with nodes and pods behind a scheduler core: what it decides happens, and inventory tells what is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count

from gpufleet.model.cluster import ClusterSpec, ElasticStock
from gpufleet.model.placement import AssignmentState
from gpufleet.model.resources import resources
from gpufleet.model.staging import Staging
from services.inventory.core.objects import Node, Pod, Pool
from services.inventory.core.snapshot import ClusterInventory
from services.scheduler.core.events import ClusterRegistered, InventoryChanged, PodsChanged, PodsGone
from tests.support.scheduling import GPU, NODE, World

_CREATED = count(1)


@dataclass
class Cluster:
    """Nodes by name with their GPUs, the pods on them, and the inventory that tells of both."""

    name: str
    nodes: dict[str, int]
    known: ClusterInventory = field(init=False)
    pods: dict[str, Pod] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.known = ClusterInventory(self.name, 1, incarnation="uid-" + self.name)
        self.known.began(0.0)
        self.known.whole = True
        for name, gpus in self.nodes.items():
            self.put_node(name, gpus)

    def put_node(self, name: str, gpus: int, *, usable: bool = True) -> None:
        """Adds or changes a node."""
        allocatable = resources({**NODE, GPU: gpus})
        self.known.cache.put_node(Node(name, (("gpus", str(gpus)),), (), allocatable, usable=usable))

    def put_stock(self, gpus: int, nodes: int) -> None:
        """Says how many nodes with so many GPUs could be created."""
        pool = Pool("stock", (("gpus", str(gpus)),), (), resources({**NODE, GPU: gpus}), ElasticStock(nodes, nodes))
        self.known.cache.replace_pools([pool])

    def free(self, node: str) -> int:
        """GPUs of a node that no pod has."""
        taken = (dict(pod.requests).get(GPU, 0) for pod in self.pods.values() if pod.node == node)
        return self.nodes[node] - sum(taken)

    def of(self, workload: str, component: str) -> list[Pod]:
        """Pods of a component in the order in which its controller takes them away."""
        found = [p for p in self.pods.values() if (p.workload, p.component) == (workload, component)]
        together = Counter(pod.node for pod in found)
        return sorted(found, key=lambda pod: (not pod.terminating, -together[pod.node], -pod.created))

    def start(self, workload: str, component: str, gpus: int, node: str) -> None:
        """Binds a new pod to a node."""
        number = next(_CREATED)
        pod = Pod(
            uid=f"p{number:06}",
            namespace=workload.partition("/")[0],
            name=f"p{number}",
            node=node,
            requests=resources({"pods": 1, GPU: gpus}),
            phase="Running",
            created=float(number),
            ready=True,
            workload=workload,
            component=component,
        )
        self.pods[pod.uid] = pod
        self.known.cache.put_pod(pod)

    def terminate(self, pod: Pod) -> None:
        """Has a pod be deleted: it keeps its room until it stops."""
        self.pods[pod.uid] = replace(pod, terminating=True)
        self.known.cache.put_pod(self.pods[pod.uid])

    def stop(self, pod: Pod) -> None:
        """Takes a pod away."""
        del self.pods[pod.uid]
        self.known.cache.remove_pod(pod.uid)


@dataclass
class Fleet:
    """A world whose clusters have nodes."""

    world: World
    clusters: dict[str, Cluster]

    def register(self) -> None:
        """Registers the clusters and publishes them."""
        self.world.feed(*(ClusterRegistered(ClusterSpec(name)) for name in self.clusters))
        self.publish()

    def publish(self) -> None:
        """Publishes what has changed in each cluster, as one snapshot."""
        for cluster in self.clusters.values():
            cluster.known.contact(self.world.now)
            cluster.known.publish_all()
            staging, closed = Staging(), None
            made = cluster.known.publish(self.world.now)
            for part in made.parts:
                closed = staging.take(part)
            assert closed is not None
            self.world.feed(
                *(PodsChanged(pods) for pods in closed.pods),
                *(PodsGone(cluster.name, key) for key in made.removed_pods),
                InventoryChanged(closed.inventory),
            )

    def debt(self, cluster: str) -> int:
        """Pods that a cluster owes room to."""
        member = self.world.state.fleet.members[cluster]
        member.settle()
        return member.debt

    def wanted(self, cluster: str) -> dict[tuple[str, str], int]:
        """Pods by workload and component that a cluster is to have."""
        found: dict[tuple[str, str], int] = {}
        for (workload, where), (_, assignment) in self.world.assignments.items():
            if where == cluster and assignment is not None and assignment.state is AssignmentState.ACTIVE:
                found.update({(workload, name): pods for name, pods in assignment.components})
        return found

    def surplus(self) -> Iterator[tuple[Cluster, Pod]]:
        """Yields the pods that controllers take away because there are too many, or have taken away already."""
        for name, cluster in self.clusters.items():
            wanted = self.wanted(name)
            for key in sorted({(pod.workload, pod.component) for pod in cluster.pods.values()}):
                there = cluster.of(*key)
                deleted = sum(pod.terminating for pod in there)
                for pod in there[: deleted + max(0, len(there) - deleted - wanted.get(key, 0))]:
                    yield cluster, pod

    def terminate_surplus(self) -> None:
        """Has controllers delete what they have too much; the pods have not stopped yet. Publishes."""
        for cluster, pod in list(self.surplus()):
            cluster.terminate(pod)
        self.publish()

    def stop_surplus(self) -> None:
        """Lets every controller take away what it has too much, and removed copies report gone; publishes."""
        for cluster, pod in list(self.surplus()):
            cluster.stop(pod)
        self.publish()
        for (workload, where), (_, assignment) in list(self.world.assignments.items()):
            if assignment is not None and assignment.state is AssignmentState.REMOVING:
                self.world.gone(workload, where)

    def pending(self, cluster: str) -> list[tuple[str, str, int]]:
        """Pods that a cluster is to have and has not: workload, component, GPUs; the largest first."""
        there = (pod for pod in self.clusters[cluster].pods.values() if not pod.terminating)
        here = Counter((pod.workload, pod.component) for pod in there)
        found = []
        for (workload, component), pods in sorted(self.wanted(cluster).items()):
            known = self.world.state.entries[workload].current
            assert known is not None
            shape = next(c.shape for c in known.components if c.name == component)
            gpus = dict(shape.requests).get(GPU, 0)
            found += [(workload, component, gpus)] * (pods - here[workload, component])
        return sorted(found, key=lambda item: -item[2])

    def start_pending(self, picks: list[int]) -> None:
        """Lets each cluster's scheduler bind what is pending, to any node with room, by ``picks``; publishes."""
        for name, cluster in self.clusters.items():
            for number, (workload, component, gpus) in enumerate(self.pending(name)):
                fitting = [node for node in cluster.nodes if cluster.free(node) >= gpus]
                if fitting:
                    pick = picks[number % len(picks)] if picks else 0
                    cluster.start(workload, component, gpus, fitting[pick % len(fitting)])
        self.publish()
