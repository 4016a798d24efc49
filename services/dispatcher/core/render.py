"""From an assignment to the object that is applied: patches, replicas, overrides, marks, fence; in this order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from gpufleet.model import kinds, names, quantity
from gpufleet.model.kinds.edit import editable
from gpufleet.model.patch import apply_patch
from gpufleet.model.placement import Assignment

_SERVER_SET = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
)


class RenderError(ValueError):
    """An assignment that cannot be rendered; it is refused for good, with this message."""


def marks(workload: str) -> dict[str, str]:
    """Returns the labels by which a workload's objects and pods are found."""
    return {names.WORKLOAD_LABEL: names.workload_label(workload)}


def fence_name(workload: str) -> str:
    """Returns the name of the fence of a job: one per job and cluster, in the job's namespace."""
    return f"gpufleet-fence-{names.workload_label(workload)}"


def namespace_of(workload: str) -> str:
    """Returns the namespace in a workload key."""
    return workload.partition("/")[0]


def render(assignment: Assignment, *, suspend: bool | None = None) -> dict[str, Any]:
    """Returns the object of an assignment, without version stamp and owner.

    ``suspend`` sets the kind's suspension, where it has one; None leaves what the producer wrote.
    Raises RenderError.
    """
    obj = dict(assignment.manifest)
    obj.pop("status", None)
    try:
        for patch in assignment.patches:
            apply_patch(obj, patch)
        obj = kinds.with_replicas(obj, assignment.components)
        for patch in assignment.overrides:
            apply_patch(obj, patch)
        metadata = editable(obj, "metadata")
        for field in _SERVER_SET:
            metadata.pop(field, None)
        metadata["namespace"] = namespace_of(assignment.workload)
        editable(obj, "metadata", "labels").update(marks(assignment.workload))
        editable(obj, "metadata", "annotations")[names.WORKLOAD_ANNOTATION] = assignment.workload
        for template in kinds.pod_templates(obj):
            editable(obj, *template.labels).update(
                {**marks(assignment.workload), names.COMPONENT_LABEL: template.component}
            )
            editable(obj, *template.annotations)[names.WORKLOAD_ANNOTATION] = assignment.workload
        path = kinds.spec_of(obj).suspend_path
        if suspend is not None and path is not None:
            editable(obj, *path[:-1])[path[-1]] = suspend
    except (kinds.KindError, KeyError, IndexError, TypeError, ValueError) as error:
        raise RenderError(f"the manifest of {assignment.workload} cannot be rendered: {error}") from error
    return obj


class Renderer(Protocol):
    """Renders as `render` does."""

    def __call__(self, assignment: Assignment, *, suspend: bool | None = None) -> dict[str, Any]:
        """See `render`."""


class Renderings:
    """A renderer that keeps what it made last of each workload, since objects are looked at far more often than
    assignments change. What it returns must not be changed; an assignment is recognised by its identity. A workload
    has several objects of one version where its pods are in several units."""

    def __init__(self) -> None:
        self._last: dict[str, list[tuple[Assignment, bool | None, dict[str, Any]]]] = {}

    def __call__(self, assignment: Assignment, *, suspend: bool | None = None) -> dict[str, Any]:
        """See `render`."""
        known = self._last.get(assignment.workload, [])
        for order, suspended, obj in known:
            if order is assignment and suspended is suspend:
                return obj
        made = render(assignment, suspend=suspend)
        kept = [k for k in known if k[0].version == assignment.version and k[0] is not assignment]
        self._last[assignment.workload] = [*kept, (assignment, suspend, made)]
        return made

    def forget(self, workload: str) -> None:
        """Drops what is kept of a workload."""
        self._last.pop(workload, None)


def suspend_path(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns where the kind has its suspension; empty where it has none. Raises RenderError."""
    try:
        return kinds.spec_of(manifest).suspend_path or ()
    except kinds.KindError as error:
        raise RenderError(str(error)) from error


def suspends(manifest: Mapping[str, Any]) -> bool:
    """Returns whether the kind can be created suspended. Raises RenderError."""
    return bool(suspend_path(manifest))


def suspended(obj: Mapping[str, Any]) -> bool:
    """Returns whether an object says that it is suspended. Raises RenderError."""
    here: Any = obj
    for key in suspend_path(obj):
        here = here.get(key) if isinstance(here, Mapping) else None
    return here is True


def differs(wanted: Any, live: Any) -> bool:
    """Returns whether something that we want is not so in the live object.

    Fields that only the live object has belong to defaulting or to a controller in the cluster and are left alone.
    """
    if isinstance(wanted, Mapping):
        return not isinstance(live, Mapping) or any(differs(value, live.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list | tuple):
        if not isinstance(live, list | tuple) or len(wanted) != len(live):
            return not (not wanted and live is None)
        return any(differs(a, b) for a, b in zip(wanted, live, strict=True))
    if wanted is None:
        return live is not None
    return bool(wanted != live) and not _same_quantity(wanted, live)


def projected(wanted: Any, answer: Any) -> Any:
    """Returns what a server answered in the fields that we want, in its own spelling and order."""
    if isinstance(wanted, Mapping) and isinstance(answer, Mapping):
        return {key: projected(value, answer.get(key)) for key, value in wanted.items()}
    return answer


def _same_quantity(wanted: Any, live: Any) -> bool:
    """API servers write quantities their own way: 1000m becomes 1, and a number becomes a text."""
    if not isinstance(wanted, str | int | float) or not isinstance(live, str | int | float):
        return False
    try:
        return quantity.parse(wanted, "cpu") == quantity.parse(live, "cpu")
    except quantity.QuantityError:
        return False
