"""Override policies: what is changed in a workload's object on its way to some clusters (specification 1.3).

Field meanings follow Karmada's OverridePolicy and ClusterOverridePolicy, which ACK One's are compatible with.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gpufleet.model.policy import ClusterAffinity, ResourceSelector
from gpufleet.model.resources import Labels


class Operator(StrEnum):
    """What an overrider does with its value."""

    ADD = "add"
    REMOVE = "remove"
    REPLACE = "replace"


class ImagePart(StrEnum):
    """Part of an image name, `[registry/]repository[:tag]`."""

    REGISTRY = "Registry"
    REPOSITORY = "Repository"
    TAG = "Tag"


@dataclass(frozen=True, slots=True)
class ImageOverrider:
    """Changes a part of the image at ``path`` (a JSON pointer), or of every container's image without one."""

    part: ImagePart
    operator: Operator
    value: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class ArgumentOverrider:
    """Appends ``values`` to a container's command or args, or takes those that are equal to one of them out."""

    container: str
    operator: Operator
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelOverrider:
    """Changes the object's labels or annotations; ``replace`` and ``remove`` leave keys alone that are not there."""

    operator: Operator
    values: Labels = ()


@dataclass(frozen=True, slots=True)
class PatchOperation:
    """One JSON patch operation at a JSON pointer."""

    path: str
    operator: Operator
    value: Any = None


@dataclass(frozen=True, slots=True)
class FieldOverrider:
    """Changes a document in JSON, or YAML, that is the text of the field at ``path``."""

    path: str
    operations: tuple[PatchOperation, ...] = ()
    yaml: bool = False


@dataclass(frozen=True, slots=True)
class OverrideRule:
    """Overriders for the clusters of ``target`` (None: all). They run in the order of the fields below."""

    target: ClusterAffinity | None = None
    images: tuple[ImageOverrider, ...] = ()
    command: tuple[ArgumentOverrider, ...] = ()
    args: tuple[ArgumentOverrider, ...] = ()
    labels: tuple[LabelOverrider, ...] = ()
    annotations: tuple[LabelOverrider, ...] = ()
    fields: tuple[FieldOverrider, ...] = ()
    plaintext: tuple[PatchOperation, ...] = ()


@dataclass(frozen=True, slots=True)
class OverridePolicy:
    """An OverridePolicy, or a ClusterOverridePolicy where ``namespace`` is empty.

    Without ``selectors`` it concerns every workload in its scope.
    """

    name: str
    namespace: str
    rules: tuple[OverrideRule, ...]
    selectors: tuple[ResourceSelector, ...] = ()
    version: int = 0
    digest: str = ""

    @property
    def key(self) -> str:
        """``kind/namespace/name``, the key on the policies topic."""
        kind = "OverridePolicy" if self.namespace else "ClusterOverridePolicy"
        return f"{kind}/{self.namespace}/{self.name}"
