"""A workload: a manifest with one or more components (pod sets)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gpufleet.model.resources import Labels, Resources
from gpufleet.model.selectors import NodeSelectorTerm, Toleration


class Division(StrEnum):
    """How the replicas of a kind may be spread over clusters."""

    REPLICAS = "Replicas"  # any number anywhere (Deployment, StatefulSet, CloneSet)
    PARALLELISM = "Parallelism"  # a batch Job: parallelism and completions split together
    WHOLE = "Whole"  # the whole object in one cluster (PyTorchJob, Workflow, Pod…)


@dataclass(frozen=True, slots=True)
class PodShape:
    """What one pod needs of a node. Equal shapes share cached capacity, so it holds nothing else.

    ``requests`` includes ``pods: 1``. ``affinity`` is the required node affinity, alternatives ORed; empty means
    any node.
    """

    requests: Resources
    node_selector: Labels = ()
    affinity: tuple[NodeSelectorTerm, ...] = ()
    tolerations: tuple[Toleration, ...] = ()


@dataclass(frozen=True, slots=True)
class Component:
    """One pod set: ``replicas`` pods of one shape. ``labels`` are the pod template's."""

    name: str
    replicas: int
    shape: PodShape
    labels: Labels = ()
    priority_class: str = ""
    priority: int | None = None
    scheduler_name: str = ""


@dataclass(frozen=True, slots=True)
class Workload:
    """A submitted workload as the scheduler reads it.

    ``version`` is the offset of its record; ``uid`` is the producer's, never made up; ``arrival`` is the offset
    of its first record (the place in the queue). ``job``: it runs to an end and must never have two live copies.
    """

    key: str  # namespace/Kind/name
    api_version: str
    kind: str
    namespace: str
    name: str
    components: tuple[Component, ...]
    division: Division
    job: bool
    uid: str = ""
    version: int = 0
    arrival: int = 0
    labels: Labels = ()
    annotations: Labels = ()
    digest: str = ""  # of the manifest and uid; the same digest is the same submission
    min_member: int | None = None  # gang: pods that must start together; None: all
    # What ranks it as a whole (specification 14): the class's value if the class exists, else the literal priority.
    priority_class: str = ""
    priority: int | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)

    @property
    def replicas(self) -> int:
        """Pods of all components together (one full copy)."""
        return sum(c.replicas for c in self.components)


def workload_key(namespace: str, kind: str, name: str) -> str:
    """Returns ``namespace/Kind/name``; kinds unknown to gpufleet are given as ``Kind.group``."""
    return f"{namespace}/{kind}/{name}"
