"""What every workload kind says of itself: the vocabulary of the table in `gpufleet.model.kinds`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from gpufleet.model.kinds.reading import View
from gpufleet.model.placement import FailureClass, WorkloadHealth
from gpufleet.model.workload import Component, Division

Manifest = Mapping[str, Any]
# Where a field lives: keys and list indexes from the root.
Path = tuple[str | int, ...]


def pointer(path: Path) -> str:
    """Returns a path as a JSON pointer (RFC 6901), as JSON patch operations take it."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """Where the pods of a component take their metadata and their scheduling fields from.

    ``labels`` and ``annotations`` are the paths of those maps, ``spec`` is the path of the object that holds
    `nodeSelector` and `tolerations`. None of them need exist in the manifest.
    """

    component: str
    path: Path
    labels: Path
    annotations: Path
    spec: Path

    @property
    def node_selector(self) -> Path:
        """The path of the node selector."""
        return (*self.spec, "nodeSelector")

    @property
    def tolerations(self) -> Path:
        """The path of the tolerations."""
        return (*self.spec, "tolerations")


def pod_template(component: str, *path: str | int) -> PodTemplate:
    """Returns an ordinary template: an object with `metadata` and `spec`."""
    metadata = (*path, "metadata")
    return PodTemplate(component, path, (*metadata, "labels"), (*metadata, "annotations"), (*path, "spec"))


class Pods(NamedTuple):
    """The pod sets of a manifest, and what concerns them together."""

    components: tuple[Component, ...]
    priority_class: str = ""
    priority: int | None = None
    min_member: int | None = None
    division: Division | None = None  # where the manifest says otherwise than the kind


@dataclass(frozen=True, slots=True)
class ObjectStatus:
    """What an object's own status says.

    ``components`` gives ready pods by component, in the kind's order. ``finished``: it ran to its end with success;
    ``failed``: it ended without; ``failure`` then says whose fault that was.
    """

    health: WorkloadHealth
    ready: int = 0
    components: tuple[tuple[str, int], ...] = ()
    finished: bool = False
    failed: bool = False
    failure: FailureClass = FailureClass.NONE
    message: str = ""


@dataclass(frozen=True, slots=True)
class KindSpec:
    """One workload kind.

    ``components`` names the pod sets that it may have (empty: the manifest names them). ``suspend_path`` is the
    boolean that keeps its pods from starting, or None. ``read`` notes problems in the view instead of raising.
    ``write_replicas`` changes a manifest that is its own to change. ``read_status`` takes the whole object.
    """

    group: str
    versions: tuple[str, ...]
    kind: str
    division: Division
    job: bool
    components: tuple[str, ...]
    read: Callable[[View], Pods]
    pod_templates: Callable[[Manifest], tuple[PodTemplate, ...]]
    write_replicas: Callable[[dict[str, Any], Mapping[str, int]], None]
    read_status: Callable[[Manifest], ObjectStatus]
    suspend_path: tuple[str, ...] | None = None
    key_kind: str = ""  # what keys call it: Kind.group for kinds that are declared; empty: the kind
    declared: str = ""  # which declaration it comes from; empty: builtin

    @property
    def key(self) -> str:
        """What keys of workloads call the kind."""
        return self.key_kind or self.kind

    @property
    def api_versions(self) -> tuple[str, ...]:
        """The API versions that are understood, the preferred one first."""
        return tuple(f"{self.group}/{version}" if self.group else version for version in self.versions)
