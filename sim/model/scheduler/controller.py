"""The scheduler: binds pending pods, best node first, most important pod first.

Filters are node name order, `unschedulable`, taints, node selector and required node affinity, resources (extended
ones and the number of pods included), and on virtual nodes the region and the stock of GPU models. Not looked at:
volumes, host ports, affinity between pods, topology spread. There is no preemption.

It keeps node usage and, for each set of equal pods, a heap of the nodes that take them. Both are brought up to date by
what changed, so that a pod costs the same in a cluster of ten nodes and of a hundred.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gpufleet.model.cluster import Scoring
from sim.model.api import Bind, Event, Json, Kind, Patch, Ref, Result, View, Write, ref_of
from sim.model.faults import Faults
from sim.model.names import FAULTS, SYSTEM_NAMESPACE
from sim.model.objects import (
    CONFIG_MAP,
    NODE,
    POD,
    condition,
    deleting,
    event_writes,
    finished,
    integer,
    node_of,
    seconds_of,
    with_condition,
)
from sim.model.scheduler.needs import Needs, needs_of
from sim.model.scheduler.nodes import NodeState
from sim.model.scheduler.usage import Usage

SCHEDULERS = ("default-scheduler", "ack-co-scheduler")
_IDLE_GROUPS = 64
_PREFERENCE = 2  # the weight of kube-scheduler's plugin NodeAffinity


class _Pending(NamedTuple):
    """A pod that waits; sorts as the queue does: priority, age, order of arrival."""

    rank: int
    created: float
    arrival: int
    uid: str
    ref: Ref


_Candidate = tuple[int, tuple[Any, ...], int, str]  # (-score, order, version, name)


@dataclass(slots=True)
class _Group:
    """Pending pods with equal needs, and the nodes that take one more of them."""

    needs: Needs
    pods: dict[str, _Pending] = field(default_factory=dict)
    heaps: dict[int, list[_Candidate]] | None = None  # by how much of what the pods prefer the nodes have
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)  # by node: static version, why
    cursor: int = 0  # into the log of changed nodes
    failed: bool = False
    fresh: set[str] = field(default_factory=set)  # pods that have not been tried
    explained: int = -1  # the state of the set of nodes that its pods were last told of


class Scheduler:
    """Binds pods of the given scheduler names."""

    name = "kube-scheduler"
    watches: tuple[Kind, ...] = (POD, NODE, CONFIG_MAP)

    def __init__(
        self, *, schedulers: Iterable[str] = SCHEDULERS, scoring: Scoring | None = None, emit_events: bool = True
    ) -> None:
        self._schedulers = frozenset(schedulers)
        self._scoring = scoring or Scoring()
        self._emit_events = emit_events
        self._key = Ref("", "", "", self.name)
        self._usage = Usage(self._changed)
        self._groups: dict[Needs, _Group] = {}
        self._group_of: dict[str, _Group] = {}
        self._log: list[str] = []
        self._arrivals = 0
        self._nodes_version = 0
        self._unconfirmed: dict[str, Ref] = {}  # bindings asked for and not seen yet
        self._faults = Faults()

    # What changes

    def observe(self, view: View, event: Event) -> Iterable[Ref]:
        """Keeps usage and the queue up to date; asks for a round where one may bind something."""
        if event.kind == POD:
            wanted = self._observe_pod(event)
        elif event.kind == NODE:
            wanted = self._observe_node(event)
        else:
            wanted = self._observe_faults(view, event)
        return (self._key,) if wanted else ()

    def _observe_pod(self, event: Event) -> bool:
        pod = event.current
        uid = pod["metadata"]["uid"]
        node = "" if event.obj is None or finished(pod) else node_of(pod)
        waits = (
            event.obj is not None
            and not node
            and not finished(pod)
            and not deleting(pod)
            and not pod["spec"].get("schedulingGates")
            and pod["spec"].get("schedulerName", "default-scheduler") in self._schedulers
        )
        if node or event.obj is None:
            self._unconfirmed.pop(uid, None)
        if not (waits and uid in self._unconfirmed):
            self._usage.put(uid, node, pod)
        group = self._group_of.get(uid)
        if not waits:
            if group is not None:
                self._dequeue(uid, group)
        elif group is None and uid not in self._unconfirmed:
            self._enqueue(pod)
            return True
        return bool(self._group_of)

    def _observe_node(self, event: Event) -> bool:
        changed = self._usage.put_node(event.current["metadata"]["name"], event.obj)
        if changed or event.obj is None:
            self._nodes_version += 1
            return bool(self._group_of)
        return False

    def _observe_faults(self, view: View, event: Event) -> bool:
        metadata = event.current["metadata"]
        if (metadata.get("namespace"), metadata["name"]) != (SYSTEM_NAMESPACE, FAULTS):
            return False
        self._faults = Faults.of(view)
        for group in self._groups.values():
            group.failed = False
        return bool(self._group_of)

    def _enqueue(self, pod: Json) -> None:
        self._arrivals += 1
        metadata, needs = pod["metadata"], needs_of(pod)
        created = seconds_of(metadata.get("creationTimestamp") or "1970-01-01T00:00:00Z")
        rank = -integer(pod["spec"].get("priority"), 0)
        pending = _Pending(rank, created, self._arrivals, metadata["uid"], ref_of(pod))
        group = self._groups.get(needs)
        if group is None:
            self._drop_idle_groups()
            group = self._groups[needs] = _Group(needs)
        group.pods[pending.uid] = pending
        group.fresh.add(pending.uid)
        self._group_of[pending.uid] = group

    def _dequeue(self, uid: str, group: _Group) -> None:
        group.pods.pop(uid, None)
        group.fresh.discard(uid)
        del self._group_of[uid]

    def _drop_idle_groups(self) -> None:
        idle = [needs for needs, group in self._groups.items() if not group.pods]
        for needs in idle[: max(0, len(idle) - _IDLE_GROUPS)]:
            del self._groups[needs]

    def _changed(self, node: str) -> None:
        self._log.append(node)
        if len(self._log) > 64 + 16 * len(self._usage.nodes):
            self._log.clear()
            for group in self._groups.values():
                group.heaps, group.cursor = None, 0

    # One round

    def reconcile(self, view: View, key: Ref, now: float) -> Result:  # noqa: ARG002
        """Binds what fits, in the order of the queue, and says of the rest why it does not."""
        self._forget_lost_bindings(view)
        writes: list[Write] = []
        stuck: set[int] = set()
        withheld = self._withheld(view)
        for pending in self._queue():
            group = self._group_of[pending.uid]
            if id(group) in stuck or pending.uid in withheld:
                continue
            node = self._choose(group)
            if node is None:
                group.failed = True
                stuck.add(id(group))
                continue
            self._usage.hold(pending.uid, node, group.needs)
            self._unconfirmed[pending.uid] = pending.ref
            self._dequeue(pending.uid, group)
            writes.append(Bind(pending.ref.namespace, pending.ref.name, node, pending.uid))
        for group in self._groups.values():
            if id(group) in stuck or (group.failed and group.pods and group.explained != self._nodes_version):
                writes += self._explain(view, group, now)
        writes += self._explain_withheld(view, withheld, now)
        return Result(writes)

    def _queue(self) -> Iterator[_Pending]:
        """Pods that may be bound now, in order; a group in which nothing changed since it failed is left out."""
        groups = [group for group in self._groups.values() if group.pods and self._worth_trying(group)]
        return iter(sorted(pending for group in groups for pending in group.pods.values()))

    def _worth_trying(self, group: _Group) -> bool:
        if group.fresh or not group.failed:
            return True
        self._refresh(group)
        return self._best(group) is not None

    def _choose(self, group: _Group) -> str | None:
        self._refresh(group)
        return self._best(group)

    def _refresh(self, group: _Group) -> None:
        """Brings a group's heaps up to date with the nodes that have changed."""
        if group.heaps is None:
            group.heaps = {}
            names: Iterable[str] = self._usage.nodes
        else:
            names = dict.fromkeys(self._log[group.cursor :])
        group.cursor = len(self._log)
        for name in names:
            state = self._usage.nodes.get(name)
            if state is not None and not self._refusal(group, state) and state.fits(group.needs):
                entry = (-state.score(group.needs, self._scoring), state.order, state.version, name)
                heapq.heappush(group.heaps.setdefault(state.preference(group.needs), []), entry)

    def _best(self, group: _Group) -> str | None:
        """The best node. Preferences are scaled by the node that has most of them, of those that take the pod."""
        tops = [(has, top) for has, heap in (group.heaps or {}).items() if (top := self._top(heap)) is not None]
        most = max((has for has, _ in tops), default=0) or 1
        return min(((t[0] - _PREFERENCE * (has * 100 // most), *t[1:]) for has, t in tops), default=(None,))[-1]

    def _top(self, heap: list[_Candidate]) -> _Candidate | None:
        while heap:
            state = self._usage.nodes.get(heap[0][3])
            if state is not None and state.version == heap[0][2]:
                return heap[0]
            heapq.heappop(heap)
        return None

    def _refusal(self, group: _Group, state: NodeState) -> str:
        known = group.refusals.get(state.name)
        if known is None or known[0] != state.static_version:
            known = group.refusals[state.name] = (state.static_version, state.refuses(group.needs))
        return known[1]

    def _forget_lost_bindings(self, view: View) -> None:
        """Pods that were to be bound and are not: the write was refused. They wait again."""
        lost = []
        for uid, ref in self._unconfirmed.items():
            pod = view.get(*ref)
            if pod is not None and pod["metadata"]["uid"] == uid and not node_of(pod):
                lost.append(pod)
        self._unconfirmed.clear()
        for pod in lost:
            self._usage.release(pod["metadata"]["uid"])
            if not finished(pod) and not deleting(pod):
                self._enqueue(pod)

    # What is said of pods that are not bound

    def _message(self, group: _Group) -> str:
        total = len(self._usage.nodes)
        reasons: Counter[str] = Counter()
        for state in self._usage.nodes.values():
            refusal = self._refusal(group, state)
            reasons.update([refusal] if refusal else state.lacks(group.needs))
        if not total:
            return "no nodes available to schedule pods"
        listed = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
        return f"0/{total} nodes are available: {listed}."

    def _explain(self, view: View, group: _Group, now: float) -> list[Write]:
        """The condition on pods that were tried for the first time, and on the first one if the reason changed."""
        first = min(group.pods.values(), default=None)
        if first is None:
            return []
        message = self._message(group)
        group.explained = self._nodes_version
        uids = sorted({*group.fresh, first.uid} & group.pods.keys(), key=lambda uid: group.pods[uid])
        group.fresh.clear()
        return [write for uid in uids for write in self._unschedulable(view, group.pods[uid], message, now)]

    def _unschedulable(self, view: View, pending: _Pending, message: str, now: float) -> list[Write]:
        pod = view.get(*pending.ref)
        if pod is None:
            return []
        known = condition(pod, "PodScheduled")
        if known is not None and (known.get("reason"), known.get("message")) == ("Unschedulable", message):
            return []
        conditions = (pod.get("status") or {}).get("conditions") or ()
        fresh = with_condition(conditions, "PodScheduled", "False", "Unschedulable", message, now)
        writes: list[Write] = [Patch(pending.ref, {"status": {"conditions": fresh}}, "status", uid=pending.uid)]
        if self._emit_events:
            component = pod["spec"].get("schedulerName", "default-scheduler")
            writes += event_writes(view, pod, "FailedScheduling", message, component, now, kind="Warning")
        return writes

    def _withheld(self, view: View) -> set[str]:
        """Pods that a fault keeps from being bound: the first so many of a workload's pending ones."""
        uids: set[str] = set()
        for fault in self._faults.withholding:
            pods = [
                pending
                for group in self._groups.values()
                for pending in group.pods.values()
                if (pod := view.get(*pending.ref)) is not None and fault.covers(pod)
            ]
            uids |= {pending.uid for pending in sorted(pods)[: fault.unschedulable]}
        return uids

    def _explain_withheld(self, view: View, uids: set[str], now: float) -> list[Write]:
        writes: list[Write] = []
        for uid in sorted(uids):
            group = self._group_of.get(uid)
            if group is not None:
                group.fresh.discard(uid)
                message = f"0/{len(self._usage.nodes)} nodes are available: withheld by a fault."
                writes += self._unschedulable(view, group.pods[uid], message, now)
        return writes
