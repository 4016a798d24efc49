"""Reading the status of an object that a cluster returned; what is missing or odd reads as not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gpufleet.model.kinds.base import Manifest, ObjectStatus
from gpufleet.model.kinds.failures import classify
from gpufleet.model.placement import FailureClass, WorkloadHealth

Fields = Mapping[str, Any]


def sub(fields: Any, key: str) -> Fields:
    """Returns a member that is a map, else an empty one."""
    value = fields.get(key) if isinstance(fields, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def parts(manifest: Manifest) -> tuple[Fields, Fields]:
    """Returns spec and status."""
    return sub(manifest, "spec"), sub(manifest, "status")


def count(fields: Fields, key: str, default: int = 0) -> int:
    """Returns a member that is a number, else the default."""
    value = fields.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def text(fields: Fields, key: str) -> str:
    """Returns a member that is a text, else an empty one."""
    value = fields.get(key)
    return value if isinstance(value, str) else ""


def items(fields: Fields, key: str) -> Iterable[Fields]:
    """Returns the maps of a member that is a list."""
    value = fields.get(key)
    return (item for item in value if isinstance(item, Mapping)) if isinstance(value, list | tuple) else ()


def find(status: Fields, kind: str, value: str = "True") -> Fields | None:
    """Returns the condition of a type that has a status, or None."""
    return next((c for c in items(status, "conditions") if c.get("type") == kind and c.get("status") == value), None)


def text_of(condition: Fields) -> str:
    """Returns a condition's message, else its reason."""
    return text(condition, "message") or text(condition, "reason")


def observed(manifest: Manifest) -> bool:
    """Returns whether the controller has seen the newest spec."""
    status, metadata = sub(manifest, "status"), sub(manifest, "metadata")
    return count(status, "observedGeneration", -1) >= count(metadata, "generation")


def failed(
    *texts: str,
    started: bool = True,
    ready: int = 0,
    components: tuple[tuple[str, int], ...] = (),
    blame: FailureClass | None = None,
) -> ObjectStatus:
    """Returns the status of something that ended without success; the last text that is not empty is the message."""
    return ObjectStatus(
        WorkloadHealth.FAILED,
        ready,
        components,
        failed=True,
        failure=blame or classify(*texts, started=started),
        message=next((t for t in reversed(texts) if t), ""),
    )


def succeeded(message: str = "") -> ObjectStatus:
    """Returns the status of something that ran to its end."""
    return ObjectStatus(WorkloadHealth.SUCCEEDED, finished=True, message=message)


def running(components: tuple[tuple[str, int], ...], *, healthy: bool, message: str = "") -> ObjectStatus:
    """Returns the status of a job that has not ended."""
    health = WorkloadHealth.HEALTHY if healthy else WorkloadHealth.PROGRESSING
    return ObjectStatus(health, sum(n for _, n in components), components, message=message)
