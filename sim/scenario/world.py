"""The services' cores around simulated clusters, under one clock that somebody else moves.

What the topics carry between them are lists here. An instant is settled when nobody has anything more to say at it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gpufleet.model.cluster import Health, Inventory
from gpufleet.model.placement import Placement, Version
from gpufleet.model.policy import PriorityClass
from gpufleet.model.queueing import counted
from gpufleet.model.reasons import Verdict
from gpufleet.wire.documents import Parsed, PlacementDocument
from gpufleet.wire.documents_scenario import Delete, Pods, Reschedule, Scale
from services.dispatcher.core.table import ClusterTable
from services.rescheduler import core as rescheduler
from services.rescheduler.core import events as rev
from services.scheduler.core import assign
from services.scheduler.core import events as ev
from services.scheduler.core.decide import decide
from services.scheduler.core.outputs import HistoryEntry, Outputs
from services.scheduler.core.state import State
from sim.api.resources import NAMESPACES
from sim.model.api import Json
from sim.placed import as_decided, bound_pods
from sim.scenario.bound import Wanted
from sim.scenario.change import namespace, provide_priority_classes
from sim.scenario.member import EPOCH, LOG, Member, build_member
from sim.scenario.pods import play, release
from sim.scenario.settings import ScenarioSettings
from sim.scenario.steps import Deed, SetCluster, Submit

# 2026-01-01T00:00:00Z; any time would do, but reasons and objects show it.
START = 1_767_225_600.0
_MOST_ROUNDS = 1_000
_SOON = 0.001


class Restless(RuntimeError):
    """The services go on answering each other at one instant."""


@dataclass(slots=True)
class World:
    """A fleet of simulated clusters with one instance of each service."""

    settings: ScenarioSettings
    crds: Sequence[Json] = ()
    now: float = START
    members: dict[str, Member] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    state: State = field(init=False)
    moves: rescheduler.State = field(init=False)
    frozen: bool = False
    decided: Callable[[HistoryEntry], None] | None = None  # is told of every decision
    _events: list[ev.Event] = field(default_factory=list)
    _moves: list[rev.Event] = field(default_factory=list)
    _scheduler_wakes: float | None = None
    _rescheduler_wakes: float | None = None
    _records: int = 0
    _given: dict[str, Placement] = field(default_factory=dict)
    _namespaces: set[str] = field(default_factory=set)
    _ranks: dict[str, PriorityClass] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.state = State(self.settings.scheduler)
        self.moves = rescheduler.State(limits=self.settings.rescheduler)

    # -- the start -----------------------------------------------------------------------------------------------

    def start(self, parsed: Parsed) -> None:
        """Builds the fleet of documents, with the pods of their placements, and lets the services begin."""
        known = {k: p for k, p in parsed.placements.items() if k in parsed.workloads}
        self._namespaces |= {workload.namespace for workload in parsed.workloads.values()}
        for name in sorted(parsed.clusters):
            self._add_cluster(name, parsed, _bound(known, name))
        self._submit_rules(parsed)
        for item in parsed.objects:
            if item.key in parsed.workloads and parsed.workloads[item.key] is item.value:
                self._submit_workload(item.key, parsed)
        self._read_placements(parsed.placements)
        self._seat()
        self._events.append(ev.Started(EPOCH, LOG))

    def _read_placements(self, placements: Mapping[str, PlacementDocument]) -> None:
        """Has the scheduler take over where workloads are, as after a restart."""
        self._inventories()
        self._decide()
        for key, item in sorted(placements.items()):
            self._given[key] = item.placement
            placement = as_decided(self.state, item.placement, self.now)
            self._events.append(ev.PlacementRead(key, placement.version, placement))
            self._moves.append(rev.PlacementChanged(key, placement))
        self._decide()

    def _seat(self) -> None:
        """Puts the pods of those placements on nodes, and then lets the clusters go their own way."""
        for key in sorted(self.state.entries):
            entry = self.state.entries[key]
            if entry.placement is not None and entry.current is not None:
                orders = Outputs()
                assign.derive(self.state, entry, orders)
                self._give(orders)
        busy = True
        while busy:
            busy = False
            for member in self._ordered():
                if member.seating is None:
                    continue
                silent, member.silent = member.silent, False
                for seen in member.dispatch(self.now, frozen=False):
                    self._tell(ev.Observed(seen), rev.Observed(member.name, seen.workload, seen))
                    busy = True
                member.silent = silent
                member.drive.settle(self.now)
                busy |= member.seating.bind(self.now)
                member.drive.settle(self.now)
        for member in self._ordered():
            self.warnings += member.finish(self.now)
            member.look_at_all()

    def _add_cluster(self, name: str, parsed: Parsed, bound: Wanted | None = None) -> None:
        registration = parsed.clusters[name]
        inventory = parsed.inventories.get(name) or Inventory(name)
        self.members[name] = build_member(
            registration.spec,
            inventory,
            self.settings,
            bound=bound,
            namespaces=self._namespaces,
            crds=self.crds,
            now=self.now,
        )
        self._events.append(ev.ClusterRegistered(registration.spec))

    # -- what happens --------------------------------------------------------------------------------------------

    def arrive(self, now: float) -> None:
        """Goes on to a time; every cluster that answers is heard of once more before anything happens there."""
        self.now = now
        self._inventories()

    def do(self, deed: Deed) -> None:
        """Lets one step of a scenario happen; what follows from it comes with `settle`."""
        match deed:
            case Submit(parsed):
                self._submit(parsed)
            case SetCluster():
                self._set_cluster(deed)
            case Scale(workload, replicas):
                self._events.append(ev.Scaled(workload, replicas))
            case Reschedule(workload):
                self._events.append(ev.RescheduleRequested(workload))
            case Delete(workload):
                self._records += 1
                self._events += [ev.WorkloadDeleted(workload, self._records), ev.Scaled(workload, None)]
            case Pods():
                self.warnings += play(self.members[deed.cluster], deed, self.now)

    def _submit(self, parsed: Parsed) -> None:
        self._namespaces |= {workload.namespace for workload in parsed.workloads.values()}
        for name in sorted(parsed.clusters):
            self._add_cluster(name, parsed)
        self._submit_rules(parsed)
        self._make_namespaces()
        for key in parsed.workloads:
            self._submit_workload(key, parsed)

    def _submit_rules(self, parsed: Parsed) -> None:
        self._events += [ev.PolicyChanged(policy) for policy in parsed.policies.values()]
        self._events += [ev.PolicyChanged(policy) for policy in parsed.overrides.values()]
        self._events += [ev.PolicyChanged(policy) for policy in parsed.resource_policies.values()]
        self._events += [ev.PolicyChanged(rank) for rank in parsed.priority_classes.values()]
        self._ranks |= {rank.name: rank for rank in parsed.priority_classes.values()}
        for member in self._ordered():
            provide_priority_classes(member.shaped.cluster.store, self._ranks.values(), self.now)
        self._events += [ev.PolicyChanged(tree) for tree in parsed.quota_trees.values()]
        self._events += [ev.PolicyChanged(queue) for queue in parsed.queues.values()]
        if parsed.freeze is not None and not self.frozen:
            self.frozen = True
            self._tell(ev.FreezeChanged(True), rev.FreezeChanged(True))

    def _submit_workload(self, key: str, parsed: Parsed) -> None:
        self._records += 1
        workload = replace(parsed.workloads[key], version=self._records, arrival=self._records)
        self._events.append(ev.WorkloadSubmitted(workload))

    def _make_namespaces(self) -> None:
        """Where a document does not say which namespaces there are, every one that is asked for exists."""
        for member in self._ordered():
            if member.shaped.inventory.namespaces is not None:
                continue
            store = member.shaped.cluster.store
            for name in sorted(self._namespaces):
                if store.find(NAMESPACES, "", name) is None:
                    store.create(NAMESPACES, namespace(name), now=self.now)

    def _set_cluster(self, deed: SetCluster) -> None:
        spec = deed.registration.spec
        member = self.members[spec.name]
        member.shaped.cluster.spec = spec
        after = deed.inventory or Inventory(spec.name)
        member.shaped.change(after, self.crds, self.now)
        self._make_namespaces()
        if member.inventory.apis != after.apis:
            member.inventory.apis, member.inventory.changed = after.apis, True
        member.read_namespaces()
        was_silent, member.silent = member.silent, after.health is Health.UNREACHABLE
        if was_silent and not member.silent:
            member.look_at_all()
        self._events.append(ev.ClusterRegistered(spec))

    # -- an instant ----------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Lets everything happen that is due now. Raises Restless where that has no end."""
        timers = True
        for _ in range(_MOST_ROUNDS):
            for member in self._ordered():
                member.drive.settle(self.now)
            busy = self._inventories()
            busy |= self._decide(timers=timers)
            busy |= self._dispatch()
            busy |= self._reschedule(timers=timers)
            timers = False
            if not busy and not sum(release(member, self.now) for member in self._ordered()):
                return
        raise Restless(f"the fleet does not come to rest {self.now - START:g} s after the start")

    def wake_at(self) -> float | None:
        """When something happens by itself, or None."""
        times = [self._scheduler_wakes, self._rescheduler_wakes]
        for member in self.members.values():
            times += [member.drive.next_wake(), member.wake_at(self.now)]
        found = min((at for at in times if at is not None), default=None)
        return None if found is None else max(found, self.now + _SOON)

    def placements(self) -> list[Placement]:
        """Every placement, ordered by workload. One of the start whose workload was never submitted is as given."""
        return counted(
            self._given[p.workload] if p.verdict is Verdict.ORPHANED and p.workload in self._given else p
            for p in self.state.placements()
        )

    def _inventories(self) -> bool:
        busy = False
        for member in self._ordered():
            if member.seating is not None:
                member.read_all()
            closed = member.observe(self.now)
            if closed is None:
                continue
            busy = True
            self._events += [ev.PodsChanged(pods) for pods in closed.pods]
            self._events += [ev.PodsGone(member.name, workload) for workload in closed.pods_gone]
            self._events.append(ev.InventoryChanged(closed.inventory))
            self._moves.append(rev.ClusterChanged(member.name, closed.inventory))
            self._moves += [rev.PodsChanged(member.name, pods.workload, pods) for pods in closed.pods]
            self._moves += [rev.PodsChanged(member.name, workload, None) for workload in closed.pods_gone]
        return busy

    def _decide(self, *, timers: bool = False) -> bool:
        due = timers and self._scheduler_wakes is not None and self._scheduler_wakes <= self.now
        if not self._events and not due:
            return False
        events, self._events = self._events, []
        out = decide(self.state, events or [ev.Tick()], self.now)
        self._scheduler_wakes = out.wake_at
        if self.decided is not None:
            for entry in out.history:
                self.decided(entry)
        for write in out.placements:
            self._moves.append(rev.PlacementChanged(write.workload, write.placement))
        self._give(out)
        return True

    def _give(self, out: Outputs) -> None:
        """Hands assignments to the dispatcher."""
        for write in out.assignments:
            member = self.members.get(write.cluster)
            if member is None:
                continue
            if write.assignment is not None:
                member.assign(write.assignment)
            else:
                self._bury(member, member.table, write.workload, write.version)

    def _bury(self, member: Member, table: ClusterTable, workload: str, version: Version) -> None:
        if not table.bury(workload, version):
            return
        member.bench.forget(workload)
        if table.forget(workload) is not None:
            self._tell(ev.ObservationGone(workload, member.name), rev.Observed(member.name, workload, None))

    def _dispatch(self) -> bool:
        busy = False
        for member in self._ordered():
            worked = bool(member.dirty) and not member.silent
            for seen in member.dispatch(self.now, frozen=self.frozen):
                self._tell(ev.Observed(seen), rev.Observed(member.name, seen.workload, seen))
            busy |= worked
        return busy

    def _reschedule(self, *, timers: bool) -> bool:
        due = timers and self._rescheduler_wakes is not None and self._rescheduler_wakes <= self.now
        if not self._moves and not due:
            return False
        events, self._moves = self._moves, []
        out = rescheduler.decide(self.moves, events, self.now)
        self._rescheduler_wakes = out.wake_at
        self._events += [ev.Evicted(eviction) for eviction in out.evictions]
        self._events += [ev.EvictionGone(workload) for workload in out.forget]
        return bool(out.evictions or out.forget)

    def _tell(self, event: ev.Event, move: rev.Event) -> None:
        self._events.append(event)
        self._moves.append(move)

    def _ordered(self) -> Iterable[Member]:
        return [self.members[name] for name in sorted(self.members)]


def _bound(placements: Mapping[str, PlacementDocument], cluster: str) -> Wanted:
    """Returns the pods that are bound in a cluster, by workload and component."""
    found = {key: bound_pods(item, cluster) for key, item in sorted(placements.items())}
    return {key: components for key, components in found.items() if any(components.values())}
