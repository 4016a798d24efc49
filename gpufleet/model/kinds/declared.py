"""Kinds that an operator declares: where an object has its pod templates, their counts, and its status.

What Karmada's ResourceInterpreterCustomization says in Lua is said here in paths, so that a declaration can be read,
checked and simulated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpufleet.model.kinds import conditions
from gpufleet.model.kinds.base import KindSpec, Manifest, ObjectStatus, Path, Pods, PodTemplate, pod_template
from gpufleet.model.kinds.edit import editable
from gpufleet.model.kinds.pods import component, min_member
from gpufleet.model.kinds.reading import MAX_REPLICAS, View, is_label_value, join
from gpufleet.model.placement import WorkloadHealth
from gpufleet.model.workload import Division


@dataclass(frozen=True, slots=True)
class PodSet:
    """Pods of one template. With ``each`` there is one set per item of a list, and the other paths start at an item.

    ``name`` is the component's; with ``each``, ``name_at`` says where an item has it. ``ready`` is where the status
    counts its ready pods, from the root of the object (not with ``each``).
    """

    template: Path
    name: str = ""
    replicas: Path = ()
    default: int = 1
    ready: Path = ()
    each: Path = ()
    name_at: Path = ()


@dataclass(frozen=True, slots=True)
class When:
    """A state: a condition of a type is True, or the text at a path is one of some values."""

    condition: str = ""
    path: Path = ()
    values: tuple[str, ...] = ()

    def holds(self, obj: Manifest) -> bool:
        """Returns whether an object is in this state."""
        if self.condition:
            return conditions.find(conditions.sub(obj, "status"), self.condition) is not None
        return at(obj, self.path) in self.values


@dataclass(frozen=True, slots=True)
class Declaration:
    """A declared kind. ``name`` is the document's, ``version`` the offset of its record."""

    name: str
    group: str
    versions: tuple[str, ...]
    kind: str
    pod_sets: tuple[PodSet, ...]
    job: bool = True
    division: Division = Division.WHOLE
    suspend: Path = ()
    priority_class: Path = ()
    min_member: Path = ()
    succeeded: When | None = None
    failed: When | None = None
    healthy: When | None = None
    message: Path = ("status", "message")
    plural: str = ""
    version: int = 0
    digest: str = ""


def at(obj: Any, path: Path) -> Any:
    """Returns what is at a path, or None."""
    for key in path:
        if isinstance(obj, Mapping):
            obj = obj.get(str(key))
        elif isinstance(obj, list | tuple) and isinstance(key, int) and key < len(obj):
            obj = obj[key]
        else:
            return None
    return obj


def spec_of(declaration: Declaration) -> KindSpec:
    """Returns a declared kind in the form of the builtin ones."""

    def read(manifest: View) -> Pods:
        return _read(declaration, manifest)

    def pod_templates(manifest: Manifest) -> tuple[PodTemplate, ...]:
        return tuple(pod_template(name, *base, *s.template) for name, base, s in _sets(declaration, manifest))

    def write_replicas(manifest: dict[str, Any], components: Mapping[str, int]) -> None:
        for name, base, pods in _sets(declaration, manifest):
            if pods.replicas and name in components and components[name] != _count(manifest, base, pods):
                path = (*base, *pods.replicas)
                editable(manifest, *path[:-1])[str(path[-1])] = components[name]

    def read_status(manifest: Manifest) -> ObjectStatus:
        return _status(declaration, manifest)

    return KindSpec(
        group=declaration.group,
        versions=declaration.versions,
        kind=declaration.kind,
        division=declaration.division,
        job=declaration.job,
        components=(),
        read=read,
        pod_templates=pod_templates,
        write_replicas=write_replicas,
        read_status=read_status,
        suspend_path=tuple(str(key) for key in declaration.suspend) or None,
        key_kind=f"{declaration.kind}.{declaration.group}" if declaration.group else declaration.kind,
        declared=declaration.digest or declaration.name,
    )


def _sets(declaration: Declaration, manifest: Manifest) -> list[tuple[str, Path, PodSet]]:
    """Returns the pod sets that a manifest has: component, the path that the others start at, and the set."""
    found: list[tuple[str, Path, PodSet]] = []
    for pods in declaration.pod_sets:
        if not pods.each:
            if isinstance(at(manifest, pods.template), Mapping):
                found.append((pods.name, (), pods))
            continue
        items = at(manifest, pods.each)
        for index, item in enumerate(items if isinstance(items, list | tuple) else ()):
            name = at(item, pods.name_at)
            if isinstance(name, str) and isinstance(at(item, pods.template), Mapping):
                found.append((name, (*pods.each, index), pods))
    return found


def _count(manifest: Manifest, base: Path, pods: PodSet) -> int:
    value = at(manifest, (*base, *pods.replicas)) if pods.replicas else None
    return value if isinstance(value, int) and not isinstance(value, bool) else pods.default


def _read(declaration: Declaration, manifest: View) -> Pods:
    components, member = [], None
    names: set[str] = set()
    for name, base, pods in _sets(declaration, manifest.value):
        if not name or not is_label_value(name) or name in names:
            where = _path((*base, *(pods.name_at or ("name",))))
            manifest.problem(where, f"is {name!r}", "give each set of pods a name of its own")
            continue
        names.add(name)
        path = (*base, *pods.template)
        template = View(at(manifest.value, path), _path(path), manifest.problems)
        components.append(component(name, _replicas(manifest, base, pods), template))
        member = member or min_member(template)
    if not components:
        wanted = ", ".join(_path((*pods.each, *pods.template)) for pods in declaration.pod_sets)
        manifest.problem("spec", "has no pod template where the kind's declaration looks for one", f"write {wanted}")
        return Pods(())
    if declaration.min_member:
        value = at(manifest.value, declaration.min_member)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            member = min(value, MAX_REPLICAS)
    ranked_by = at(manifest.value, declaration.priority_class) if declaration.priority_class else None
    rank = ranked_by if isinstance(ranked_by, str) else components[0].priority_class
    return Pods(tuple(components), rank, components[0].priority, member)


def _replicas(manifest: View, base: Path, pods: PodSet) -> int:
    path = (*base, *pods.replicas)
    holder = at(manifest.value, path[:-1]) if pods.replicas else None
    if not isinstance(holder, Mapping):
        return pods.default
    view = View(holder, _path(path[:-1]), manifest.problems)
    return view.integer(str(path[-1]), pods.default, maximum=MAX_REPLICAS)


def _path(path: Path) -> str:
    text = ""
    for key in path:
        text = join(text, key)
    return text


def _status(declaration: Declaration, obj: Manifest) -> ObjectStatus:
    message = at(obj, declaration.message)
    message = message if isinstance(message, str) else ""
    sets = _sets(declaration, obj)
    counts = []
    for name, _, pods in sets:
        ready = at(obj, pods.ready) if pods.ready else None
        counts.append((name, ready if isinstance(ready, int) and not isinstance(ready, bool) else 0))
    components = tuple(counts)
    if declaration.succeeded is not None and declaration.succeeded.holds(obj):
        return conditions.succeeded(message)
    if declaration.failed is not None and declaration.failed.holds(obj):
        texts = []
        if declaration.failed.condition:
            found = conditions.find(conditions.sub(obj, "status"), declaration.failed.condition) or {}
            texts = [conditions.text(found, "reason"), conditions.text(found, "message")]
        return conditions.failed(*texts, message, components=components)
    wanted = sum(_count(obj, base, pods) for _, base, pods in sets)
    ready = sum(count for _, count in components)
    if declaration.healthy is not None:
        healthy = declaration.healthy.holds(obj)
    else:
        healthy = any(pods.ready for _, _, pods in sets) and ready >= wanted
    if healthy and not any(pods.ready for _, _, pods in sets):
        # Its status does not count pods, it only says that all is well.
        components, ready = tuple((name, _count(obj, base, pods)) for name, base, pods in sets), wanted
    if declaration.job:
        return conditions.running(components, healthy=healthy, message=message)
    health = WorkloadHealth.HEALTHY if healthy else WorkloadHealth.PROGRESSING
    return ObjectStatus(health, ready, components, message=message)
