"""Which controllers a simulated cluster has, and which of them a real one is lent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gpufleet.model import kinds
from gpufleet.model.cluster import ClusterSpec, Scoring
from sim.model.api import Controller
from sim.model.autoscaler import Autoscaler
from sim.model.controllers.argo import WorkflowController
from sim.model.controllers.cloneset import CloneSetController
from sim.model.controllers.declared import DeclaredController
from sim.model.controllers.deployment import DeploymentController
from sim.model.controllers.job import JobController
from sim.model.controllers.kubeflow import JOB_KINDS, TrainingJobController
from sim.model.controllers.quota import QuotaController
from sim.model.controllers.replicaset import ReplicaSetController
from sim.model.controllers.spark import SparkController
from sim.model.controllers.statefulset import StatefulSetController
from sim.model.kubelet import Kubelet
from sim.model.nodes import NodeController
from sim.model.scheduler import Scheduler
from sim.model.scheduler.nodes import is_virtual


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How fast a cluster does things, in seconds.

    `ready_after`: from bound to Ready; `stop_seconds`: from deleted to gone; `idle_seconds`: how long a created node
    stays empty; `grace_seconds`: how long a node that is down counts as ready; `eviction_seconds`: how long its pods
    are tolerated at most (None: as their tolerations say, 300 by default). `scoring`: which node pods are bound to.
    """

    ready_after: float = 0.0
    stop_seconds: float = 0.0
    idle_seconds: float = 600.0
    grace_seconds: float = 40.0
    eviction_seconds: float | None = None
    scoring: Scoring = field(default_factory=Scoring)

    def of(self, spec: ClusterSpec) -> Behaviour:
        """The same, with nodes chosen as a registration says of its cluster, where it says anything."""
        said = spec.scoring_strategy
        return self if said is None else replace(self, scoring=said)


def operators() -> list[Controller]:
    """The controllers of the kinds that a plain Kubernetes does not know."""
    training: list[Controller] = [TrainingJobController(kind) for kind in JOB_KINDS]
    declared: list[Controller] = [
        DeclaredController(declaration, f"{declaration.group}/{version}" if declaration.group else version)
        for declaration in kinds.declared_kinds()
        for version in declaration.versions
    ]
    return [*training, SparkController(), WorkflowController(), CloneSetController(), *declared]


def simulated(behaviour: Behaviour | None = None) -> list[Controller]:
    """Everything that a simulated cluster needs."""
    how = behaviour or Behaviour()
    return [
        DeploymentController(),
        ReplicaSetController(),
        StatefulSetController(),
        JobController(),
        QuotaController(),
        *operators(),
        Scheduler(scoring=how.scoring),
        Kubelet(ready_after=how.ready_after, stop_seconds=how.stop_seconds),
        NodeController(grace_seconds=how.grace_seconds, eviction_seconds=how.eviction_seconds),
        Autoscaler(idle_seconds=how.idle_seconds),
    ]


@dataclass(frozen=True, slots=True)
class Lent:
    """How a real control plane is treated: marks of created nodes for whoever plays their kubelets, and times.

    `drain_seconds`: how long a node takes no pods any more before it is deleted. The pods of a node that was deleted
    under them hang until the pod garbage collector finds them, a minute later.
    """

    node_annotations: Mapping[str, str] = field(default_factory=lambda: {"kwok.x-k8s.io/node": "fake"})
    heartbeat_seconds: float = 10.0
    drain_seconds: float = 1.0


def lent(behaviour: Behaviour | None = None, how: Lent | None = None) -> list[Controller]:
    """What is run against a real API server: operators, the node autoscaler, and virtual nodes with their pods.

    Pods on other nodes are started by somebody else (kwok); only their end is played, where one is asked for.
    """
    pace, lending = behaviour or Behaviour(), how or Lent()
    return [
        *operators(),
        Kubelet(ready_after=pace.ready_after, stop_seconds=pace.stop_seconds, nodes="virtual"),
        NodeController(heartbeat_seconds=lending.heartbeat_seconds, manages=is_virtual, status_only=True),
        Autoscaler(
            idle_seconds=pace.idle_seconds,
            drain_seconds=lending.drain_seconds,
            node_annotations=lending.node_annotations,
        ),
    ]
