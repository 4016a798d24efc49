"""One simulated cluster as the services see it: inventory's cache and snapshots, the dispatcher's table and bench."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from gpufleet.model import names
from gpufleet.model.cluster import ClusterSpec, FreeBlock, Health, Inventory
from gpufleet.model.placement import Assignment, Observation
from gpufleet.model.staging import Closed, Staging
from services.dispatcher.core.steps import Facts, observation
from services.dispatcher.core.table import ClusterTable
from services.inventory.core.cache import ClusterCache
from services.inventory.core.objects import (
    STOCK_CONFIGMAP,
    node_from,
    pod_from,
    pools_from,
    provisioning_from,
    quota_from,
)
from services.inventory.core.snapshot import ClusterInventory
from sim.api.changelog import Change, Feed
from sim.api.resources import NAMESPACES
from sim.fleet import build_cluster
from sim.model.api import Controller, Json
from sim.model.autoscaler import Autoscaler
from sim.model.cluster import Behaviour, simulated
from sim.model.controllers.quota import RESOURCE_QUOTA
from sim.model.drive import Drive
from sim.model.scheduler import Scheduler
from sim.scenario.bound import Seating, Wanted
from sim.scenario.change import Shaped
from sim.scenario.dispatch import Bench
from sim.scenario.settings import ScenarioSettings

LOG = "simulation"
EPOCH = 1
_AUTOSCALER = "GOATScaler"


@dataclass(slots=True)
class Member:
    """A cluster, what inventory knows of it, and what the dispatcher has to do in it.

    While it is silent nothing is read from it and nothing written to it; the cluster itself goes on.
    """

    shaped: Shaped
    inventory: ClusterInventory
    bench: Bench
    table: ClusterTable
    feed: Feed
    behaviour: Behaviour
    silent: bool = False
    aged: float = 0.0  # seconds by which what is known at the start is older
    seating: Seating | None = None  # while the pods of the start are being bound
    dirty: dict[str, None] = field(default_factory=dict)  # workloads to look at
    withheld: dict[str, int] = field(default_factory=dict)  # by workload: pods that a step keeps from being bound
    _staging: Staging = field(default_factory=Staging)
    _fences: dict[str, str] = field(default_factory=dict)  # by label: jobs that are assigned here

    @property
    def name(self) -> str:
        """The cluster's id."""
        return self.inventory.cluster

    @property
    def drive(self) -> Drive:
        """What moves the cluster."""
        return self.shaped.cluster.drive

    # -- inventory -----------------------------------------------------------------------------------------------

    def observe(self, now: float) -> Closed | None:
        """Reads what has changed, and returns the snapshot that is due, if one is."""
        inventory = self.inventory
        if not self.silent:
            inventory.contact(now)
            for change in _newest(self.feed.drain()):
                self._take(change)
        if not inventory.due(now):
            return None
        publication = inventory.publish(now)
        if self.silent:
            closing = publication.closing
            publication = replace(publication, closing=replace(closing, observed_at=closing.observed_at - self.aged))
        closed = None
        for part in publication.parts:
            closed = self._staging.take(part)
        return closed

    def wake_at(self, now: float) -> float | None:
        """When inventory has something to say although nothing changes; heartbeats are sent along with other news."""
        times = [self.inventory.cache.next_expiry(now)]
        if self.silent and self.inventory.last_contact is not None:
            lost = self.inventory.last_contact + self.inventory.timing.unreachable_after
            times.append(lost if lost > now else None)
        return min((at for at in times if at is not None), default=None)

    def _take(self, change: Change) -> None:
        cache, obj, gone = self.inventory.cache, change.obj, change.type == "DELETED"
        match change.resource.storage:
            case "nodes":
                cache.remove_node(obj["metadata"]["name"]) if gone else cache.put_node(node_from(obj))
            case "pods":
                cache.remove_pod(obj["metadata"]["uid"]) if gone else cache.put_pod(pod_from(obj))
            case "namespaces":
                self.read_namespaces()
                self.look_at_all()
            case "resourcequotas":
                self.read_quotas()
            case "configmaps" if change.key == STOCK_CONFIGMAP:
                cache.replace_pools(() if gone else pools_from(obj))
            case "events" if not gone and (obj.get("source") or {}).get("component") == _AUTOSCALER:
                claim = provisioning_from(obj)
                if claim is not None:
                    cache.put_provisioning(claim)
        self._notice(change)

    def read_all(self) -> None:
        """Takes over everything that there is."""
        view, cache = self.shaped.view, self.inventory.cache
        cache.replace_nodes(map(node_from, view.list("v1", "Node")))
        cache.replace_pods(map(pod_from, view.list("v1", "Pod")))
        cache.replace_pools(pools_from(view.get("v1", "ConfigMap", *STOCK_CONFIGMAP)))
        self.read_namespaces()
        self.read_quotas()
        self.inventory.whole = self.inventory.changed = True

    def read_namespaces(self) -> None:
        """Takes over which namespaces there are, where the document says which there are."""
        if self.shaped.inventory.namespaces is None:
            found = None
        else:
            listed = self.shaped.cluster.store.list(NAMESPACES)
            found = frozenset(n["metadata"]["name"] for n in listed if not n["metadata"].get("deletionTimestamp"))
        if self.inventory.namespaces != found:
            self.inventory.namespaces = found
            self.inventory.changed = True

    def read_quotas(self) -> None:
        """Takes over what the namespaces may use and do use."""
        read = map(quota_from, self.shaped.view.list(*RESOURCE_QUOTA))
        found = tuple(quota.bounds for quota in read if quota.bounds is not None)
        if self.inventory.quotas != found:
            self.inventory.quotas = found
            self.inventory.changed = True

    # -- the start -----------------------------------------------------------------------------------------------

    def finish(self, now: float) -> list[str]:
        """Ends the seating of the pods of the start and lets the cluster go its own way; returns warnings."""
        seating = self.seating
        if seating is None:
            return []
        self.seating = None
        seating.end(now)
        self.drive.close()
        self.shaped.cluster.drive = Drive(self.shaped.cluster.store, simulated(self.behaviour))
        self.drive.settle(now)
        self.read_all()
        return seating.warnings

    # -- dispatcher ----------------------------------------------------------------------------------------------

    def assign(self, assignment: Assignment) -> None:
        """Takes a work order."""
        if self.table.take(assignment):
            self._fences[names.workload_label(assignment.workload)] = assignment.workload
            self.dirty[assignment.workload] = None

    def look_at_all(self) -> None:
        """Everything that is assigned is to be looked at."""
        self.dirty.update(dict.fromkeys(sorted(self.table.assignments)))

    def dispatch(self, now: float, *, frozen: bool) -> list[Observation]:
        """Does what there is to do, and returns what is new about it."""
        if self.silent:
            return []
        news = []
        work, self.dirty = sorted(self.dirty), {}
        for workload in work:
            assignment = self.table.assignments.get(workload)
            if assignment is None:
                continue
            facts = Facts(LOG, self.inventory.incarnation, frozen, last=self.table.last(workload))
            done = self.bench.attend(assignment, facts, now)
            if done is None:
                continue
            seen = observation(assignment, done, facts, now)
            if self.table.news(seen):
                self.table.said(seen, now)
                news.append(seen)
        return news

    def _notice(self, change: Change) -> None:
        """Has a workload looked at whose object, fence or pod has changed."""
        label = (change.obj["metadata"].get("labels") or {}).get(names.WORKLOAD_LABEL)
        workload = self._fences.get(label or "")
        if workload is None:
            return
        assignment = self.table.assignments.get(workload)
        if assignment is not None and (assignment.job or change.resource.storage != "pods"):
            self.dirty[workload] = None


def build_member(
    spec: ClusterSpec,
    inventory: Inventory,
    settings: ScenarioSettings,
    *,
    bound: Wanted | None = None,
    namespaces: Iterable[str] = (),
    crds: Sequence[Json] = (),
    now: float,
) -> Member:
    """Returns a member in the state that its document describes; with ``bound`` pods it needs `finish`.

    One that the document calls unreachable is silent from the start, and was last heard of too long ago to be given
    anything.
    """
    behaviour = settings.clusters.of(spec)
    held = bool(bound)
    cluster = build_cluster(
        spec,
        _emptied(inventory) if held else inventory,
        now=now,
        namespaces=namespaces if inventory.namespaces is None else (),
        crds=crds,
        behaviour=behaviour,
        controllers=_without_scheduler(behaviour) if held else None,
    )
    timing = settings.inventory
    known = ClusterInventory(inventory.cluster, EPOCH, timing, apis=inventory.apis)
    known.cache = ClusterCache(provision_timeout=timing.provision_timeout)
    known.meet(cluster.store.incarnation)
    known.contact(now)
    member = Member(
        Shaped(cluster, inventory),
        known,
        Bench(cluster.store),
        ClusterTable(inventory.cluster),
        cluster.store.feed(),
        behaviour,
        silent=inventory.health is Health.UNREACHABLE,
    )
    if member.silent:
        member.aged = settings.scheduler.stale_after + 1.0
    if bound:
        member.seating = Seating(member.shaped, bound)
        member.seating.begin()
    else:
        member.read_all()
    return member


def _emptied(inventory: Inventory) -> Inventory:
    """The cluster without anything on its nodes, and without a way to get more of them."""
    return replace(
        inventory,
        node_classes=tuple(
            replace(c, free=(FreeBlock(c.nodes, c.allocatable),) if c.nodes else (), elastic=None)
            for c in inventory.node_classes
        ),
        virtual_nodes=tuple(replace(node, stock=None) for node in inventory.virtual_nodes),
    )


def _without_scheduler(behaviour: Behaviour) -> list[Controller]:
    return [c for c in simulated(behaviour) if not isinstance(c, Scheduler | Autoscaler)]


def _newest(changes: Iterable[Change]) -> list[Change]:
    """The last change of each object, in the order of their last changes."""
    last: dict[str, Change] = {}
    for change in changes:
        uid = change.obj["metadata"]["uid"]
        last.pop(uid, None)
        last[uid] = change
    return list(last.values())
