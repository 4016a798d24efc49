"""Argo Workflows, after the workflow controller, reduced to what decides which pods run when.

Templates of the kinds container, script, steps, dag and suspend; `parallelism`, `withItems` and `withSequence` with a
count, `dependencies` and plain names in `depends`, `retryStrategy.limit`, `activeDeadlineSeconds`. There are no
parameters, conditions, artifacts or exit handlers: a step with `when` runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sim.model.api import DONE, Create, Delete, Json, Ref, Result, View, Write, ref_of
from sim.model.base import OwnerController
from sim.model.objects import (
    POD,
    annotations_of,
    controlled_by,
    deleting,
    digest,
    finished,
    integer,
    number,
    phase_of,
    pod_from,
    seconds_of,
    status_write,
    timestamp,
    with_condition,
)

WORKFLOW = ("argoproj.io/v1alpha1", "Workflow")
NODE_NAME = "workflows.argoproj.io/node-name"
ENDED = ("Succeeded", "Failed", "Error")
_GOOD = ("Succeeded", "Skipped", "Omitted")
_NAME = re.compile(r"[A-Za-z0-9_-]+")
MAX_DEPTH = 32


class WorkflowError(ValueError):
    """A workflow that cannot be run; the message goes to its status."""


@dataclass(slots=True)
class _Walk:
    """One pass through the tree of templates: what it found, and what may be started."""

    workflow: Json
    templates: Mapping[str, Json]
    pods: Mapping[str, list[Json]]  # by node name, oldest first
    now: float
    nodes: Json = field(default_factory=dict)
    start: list[tuple[str, Json, int]] = field(default_factory=list)  # node name, template, attempt
    running: int = 0


class WorkflowController(OwnerController):
    """Drives Workflows: phase Pending, Running, then Succeeded, Failed or Error."""

    name = "workflow-controller"
    primary = WORKFLOW
    dependents = (POD,)

    def reconcile(self, view: View, key: Ref, now: float) -> Result:
        """Starts what may start, and ends the workflow with its entrypoint."""
        workflow = view.get(*key)
        if workflow is None or deleting(workflow):
            return DONE
        status = workflow.get("status") or {}
        pods = controlled_by(view, workflow, POD)
        if status.get("phase") in ENDED:
            return _after_end(workflow, pods, now)
        if workflow["spec"].get("suspend") and not status.get("startedAt"):
            return Result(status_write(workflow, {"phase": "Pending", "message": "suspended"}))
        by_node: dict[str, list[Json]] = {}
        for pod in sorted(pods, key=lambda p: (p["metadata"].get("creationTimestamp") or "", p["metadata"]["name"])):
            by_node.setdefault(annotations_of(pod).get(NODE_NAME, ""), []).append(pod)
        templates = {t.get("name", ""): t for t in workflow["spec"].get("templates") or ()}
        walk = _Walk(workflow, templates, by_node, now)
        try:
            phase = _visit(walk, workflow["metadata"]["name"], workflow["spec"].get("entrypoint") or "", 0)
        except WorkflowError as error:
            return Result(_end(workflow, walk, "Error", str(error), now))
        started = status.get("startedAt") or timestamp(now)
        deadline = workflow["spec"].get("activeDeadlineSeconds")
        wake_at = None if deadline is None else seconds_of(started) + number(deadline, 0)
        if wake_at is not None and now >= wake_at and phase not in ENDED:
            kill: list[Write] = [_delete(pod) for pod in pods if not finished(pod) and not deleting(pod)]
            return Result([*_end(workflow, walk, "Failed", "Step exceeded its deadline", now), *kill])
        if phase in ENDED:
            return Result(_end(workflow, walk, phase, "", now))
        writes = [] if workflow["spec"].get("suspend") else _starts(walk)
        running = walk.running > 0 or bool(writes) or status.get("phase") == "Running"
        changed = {
            "phase": "Running" if running else "Pending",
            "message": None,
            "startedAt": started,
            "nodes": walk.nodes,
            "progress": _progress(walk),
        }
        return Result([*status_write(workflow, changed), *writes], wake_at)


def _delete(pod: Json) -> Write:
    return Delete(ref_of(pod), pod["metadata"].get("uid", ""))


def _note(walk: _Walk, name: str, kind: str, template: str, phase: str) -> str:
    walk.nodes[_node_id(walk, name)] = {
        "id": _node_id(walk, name),
        "name": name,
        "displayName": name.rpartition(".")[2],
        "type": kind,
        "templateName": template,
        "phase": phase,
    }
    return phase


def _node_id(walk: _Walk, name: str) -> str:
    root = walk.workflow["metadata"]["name"]
    return root if name == root else f"{root}-{digest(name)}"


def _visit(walk: _Walk, name: str, template_name: str, depth: int, inline: Json | None = None) -> str:
    """The phase of a node of the tree; notes what may be started below it."""
    template = inline or walk.templates.get(template_name)
    if template is None:
        raise WorkflowError(f'template "{template_name}" is not defined in spec.templates')
    if depth > MAX_DEPTH:
        raise WorkflowError(f'template "{template_name}" is nested deeper than {MAX_DEPTH}')
    if "steps" in template:
        phase = _steps(walk, name, template, depth)
        return _note(walk, name, "Steps", template_name, phase)
    if "dag" in template:
        phase = _dag(walk, name, template, depth)
        return _note(walk, name, "DAG", template_name, phase)
    if "suspend" in template:
        return _note(walk, name, "Suspend", template_name, "Succeeded")
    return _note(walk, name, "Pod", template_name, _pod_phase(walk, name, template))


def _pod_phase(walk: _Walk, name: str, template: Json) -> str:
    tries = walk.pods.get(name, [])
    limit = integer((template.get("retryStrategy") or {}).get("limit"), 0)
    known = ((walk.workflow.get("status") or {}).get("nodes") or {}).get(_node_id(walk, name)) or {}
    if not tries and known.get("phase") in ENDED:
        return str(known["phase"])  # its pod was cleaned up
    if not tries:
        walk.start.append((name, template, 0))
        return "Pending"
    last = tries[-1]
    phase = phase_of(last)
    if deleting(last) and phase not in ("Succeeded", "Failed"):
        phase = "Failed"  # the workflow controller calls it "pod deleted"
    if phase == "Failed" and len(tries) <= limit:
        walk.start.append((name, template, len(tries)))
        return "Running"
    if phase in ("Pending", "Running"):
        walk.running += 1
    return phase


def _expand(task: Json) -> list[str]:
    """The name of a step or task, or its names where it is repeated."""
    name = task.get("name", "")
    items = task.get("withItems")
    sequence = task.get("withSequence")
    if items is not None:
        return [f"{name}({index})" for index in range(len(items))]
    if sequence is not None:
        return [f"{name}({index})" for index in range(integer(sequence.get("count"), 1))]
    return [name]


def _task(walk: _Walk, prefix: str, task: Json, depth: int) -> list[str]:
    phases = []
    for name in _expand(task):
        path = f"{prefix}.{name}"
        phases.append(_visit(walk, path, task.get("template") or "", depth + 1, task.get("inline")))
    return phases


def _tolerated(task: Json, phases: list[str]) -> list[str]:
    """Phases with those failures taken for good after which the workflow may go on (`continueOn`)."""
    go_on = task.get("continueOn") or {}
    forgiven = {"Failed": go_on.get("failed"), "Error": go_on.get("error")}
    return ["Succeeded" if forgiven.get(phase) else phase for phase in phases]


def _steps(walk: _Walk, name: str, template: Json, depth: int) -> str:
    """Groups of steps one after the other; the steps of a group at once."""
    for index, group in enumerate(template["steps"] or ()):
        tasks: list[Json] = group if isinstance(group, list) else [group]
        phases = [phase for task in tasks for phase in _tolerated(task, _task(walk, f"{name}[{index}]", task, depth))]
        if all(phase in _GOOD for phase in phases):
            continue
        if any(phase in ("Pending", "Running") for phase in phases):
            return "Running"
        return "Failed"
    return "Succeeded"


def _dag(walk: _Walk, name: str, template: Json, depth: int) -> str:
    """Tasks as soon as those that they depend on are done; after a failure nothing new is started."""
    tasks: dict[str, Json] = {task.get("name", ""): task for task in template["dag"].get("tasks") or ()}
    phases: dict[str, str] = {}
    waiting = dict(tasks)
    fail_fast = template["dag"].get("failFast") is not False
    while waiting:
        ready = [task for task in waiting if all(d in phases for d in _dependencies(waiting[task], tasks))]
        if not ready:
            raise WorkflowError(f"the tasks {', '.join(sorted(waiting))} depend on each other")
        for task in ready:
            body = waiting.pop(task)
            before = [phases[d] for d in _dependencies(body, tasks)]
            if any(phase in ("Pending", "Running") for phase in before):
                phases[task] = "Pending"
            elif any(phase not in _GOOD for phase in before):
                phases[task] = "Omitted"
            else:
                phases[task] = _joined(_tolerated(body, _task(walk, name, body, depth)))
    if any(phase in ("Failed", "Error") for phase in phases.values()):
        if fail_fast:
            prefix = f"{name}."
            walk.start = [entry for entry in walk.start if not entry[0].startswith(prefix)]
        started = walk.running or any(entry[0].startswith(f"{name}.") for entry in walk.start)
        return "Running" if started and "Running" in phases.values() else "Failed"
    if all(phase in _GOOD for phase in phases.values()):
        return "Succeeded"
    return "Running"


def _joined(phases: list[str]) -> str:
    if any(phase in ("Pending", "Running") for phase in phases):
        return "Running"
    return "Succeeded" if all(phase in _GOOD for phase in phases) else "Failed"


def _dependencies(task: Json, tasks: Mapping[str, Json]) -> list[str]:
    named = task.get("dependencies")
    if named is None:
        named = [n for n in _NAME.findall(re.sub(r"\.[A-Za-z]+", "", task.get("depends") or "")) if n in tasks]
    missing = [name for name in named if name not in tasks]
    if missing:
        raise WorkflowError(f'task "{task.get("name")}" depends on "{missing[0]}", which is not defined')
    return list(named)


def _starts(walk: _Walk) -> list[Write]:
    """Pods for what may start, as many as `parallelism` leaves room for."""
    limit = walk.workflow["spec"].get("parallelism")
    room = len(walk.start) if limit is None else max(0, integer(limit, 1) - walk.running)
    return [Create(_pod(walk.workflow, *entry)) for entry in walk.start[:room]]


def _pod(workflow: Json, node: str, template: Json, attempt: int) -> Json:
    spec, metadata = workflow["spec"], workflow["metadata"]
    common, own = spec.get("podMetadata") or {}, template.get("metadata") or {}
    container = template.get("container") or template.get("script") or {}
    pod_spec: Json = {"restartPolicy": "Never"}
    for place in ("nodeSelector", "affinity", "tolerations", "schedulerName", "priorityClassName"):
        value = template.get(place) or spec.get("podPriorityClassName" if place == "priorityClassName" else place)
        if value:
            pod_spec[place] = value
    made = {k: v for k, v in container.items() if k not in ("name", "source")}
    pod_spec["containers"] = [{"name": "main", "image": "container", **made}]
    merged = {
        "metadata": {
            "labels": {**(common.get("labels") or {}), **(own.get("labels") or {})},
            "annotations": {**(common.get("annotations") or {}), **(own.get("annotations") or {})},
        },
        "spec": pod_spec,
    }
    suffix = digest([node, attempt])
    base = metadata["name"] if node == metadata["name"] else f"{metadata['name']}-{template.get('name', 'inline')}"
    return pod_from(
        merged,
        workflow,
        f"{base[:200]}-{suffix}",
        labels={"workflows.argoproj.io/workflow": metadata["name"], "workflows.argoproj.io/completed": "false"},
        annotations={NODE_NAME: node},
    )


def _progress(walk: _Walk) -> str:
    pods = [node for node in walk.nodes.values() if node["type"] == "Pod"]
    return f"{sum(node['phase'] == 'Succeeded' for node in pods)}/{len(pods)}"


def _end(workflow: Json, walk: _Walk, phase: str, message: str, now: float) -> list[Write]:
    status = workflow.get("status") or {}
    conditions = with_condition(status.get("conditions") or (), "Completed", "True", "Completed", "", now)
    changed = {
        "phase": phase,
        "message": message or None,
        "startedAt": status.get("startedAt") or timestamp(now),
        "finishedAt": timestamp(now),
        "nodes": walk.nodes,
        "progress": _progress(walk),
        "conditions": conditions,
    }
    return status_write(workflow, changed)


def _after_end(workflow: Json, pods: list[Json], now: float) -> Result:
    strategy = workflow["spec"].get("ttlStrategy") or {}
    phase = workflow["status"]["phase"]
    name = "secondsAfterSuccess" if phase == "Succeeded" else "secondsAfterFailure"
    ttl = strategy.get(name, strategy.get("secondsAfterCompletion"))
    writes: list[Write] = [_delete(pod) for pod in pods if not finished(pod) and not deleting(pod)]
    if (workflow["spec"].get("podGC") or {}).get("strategy") in ("OnWorkflowCompletion", "OnPodCompletion"):
        writes += [_delete(pod) for pod in pods if finished(pod) and not deleting(pod)]
    ended = workflow["status"].get("finishedAt")
    if ttl is None or not ended:
        return Result(writes)
    until = seconds_of(ended) + number(ttl, 0)
    if now < until:
        return Result(writes, until)
    return Result([*writes, Delete(ref_of(workflow), workflow["metadata"].get("uid", ""))])
