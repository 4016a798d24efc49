"""Snapshots: what to publish about a cluster, and whether it still answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gpufleet.model.cluster import Health, NamespaceQuota, SnapshotId, WorkloadPods
from gpufleet.model.log import ClassInventory, InventorySummary
from services.inventory.core.cache import ClusterCache


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: between heartbeats, and of silence after which a cluster counts as unreachable."""

    heartbeat: float = 10.0
    unreachable_after: float = 300.0
    provision_timeout: float = 900.0


@dataclass(frozen=True, slots=True)
class Publication:
    """The records of snapshot n: what is gone, what changed, and the closing record, in the order of writing."""

    removed_classes: tuple[str, ...]
    removed_pods: tuple[str, ...]
    classes: tuple[ClassInventory, ...]
    pods: tuple[WorkloadPods, ...]
    closing: InventorySummary

    @property
    def parts(self) -> tuple[ClassInventory | WorkloadPods | InventorySummary, ...]:
        """What is written besides tombstones; the closing record is the last."""
        return (*self.classes, *self.pods, self.closing)


@dataclass(slots=True)
class ClusterInventory:
    """One cluster that this instance owns: its cache, what the topic holds of it, and its clock of contact.

    ``epoch`` is the owner's claim. Rule 2: a new owner starts from what the topic holds (``published_*``), so that
    keys that it no longer sees are tombstoned in its first snapshot.
    """

    cluster: str
    epoch: int
    timing: Timing = field(default_factory=Timing)
    incarnation: str = ""
    apis: frozenset[str] | None = None
    namespaces: frozenset[str] | None = None
    quotas: tuple[NamespaceQuota, ...] = ()
    cache: ClusterCache = field(default_factory=ClusterCache)
    published_classes: set[str] = field(default_factory=set)
    published_pods: set[str] = field(default_factory=set)
    n: int = 0
    since: float | None = None  # when it was taken over
    last_contact: float | None = None
    last_published: float | None = None
    health: Health = Health.READY
    message: str = ""
    whole: bool = False  # every list has been read once
    changed: bool = True
    everything: bool = True  # the next snapshot holds every part

    def adopt(self, classes: Iterable[str], pods: Iterable[str], incarnation: str) -> None:
        """Takes over what an earlier owner published of which cluster, until the cluster itself answers."""
        self.published_classes |= set(classes)
        self.published_pods |= set(pods)
        self.incarnation = incarnation

    def meet(self, incarnation: str) -> None:
        """Notes which cluster answers under this name; of another one than before nothing is known yet."""
        if self.incarnation not in ("", incarnation):
            self.cache = ClusterCache(provision_timeout=self.timing.provision_timeout)
            self.whole = False
            self.everything = True
        self.incarnation = incarnation

    def contact(self, now: float) -> None:
        """Notes that the cluster's API answered; a cluster that was away is ready again."""
        self.last_contact = now
        if self.health is not Health.READY:
            self.health = Health.READY
            self.message = ""
            self.changed = True

    def publish_all(self) -> None:
        """Makes the next snapshot a whole one: some part may not have been written."""
        self.everything = self.changed = True

    def refuse(self, message: str) -> None:
        """Notes that the cluster cannot be reached at all, for a reason that waiting does not mend."""
        if self.health is not Health.UNREACHABLE or self.message != message:
            self.health, self.message, self.changed = Health.UNREACHABLE, message, True

    def began(self, now: float) -> None:
        """Starts the clock of silence when the cluster is taken over."""
        self.since = now

    @property
    def silent_since(self) -> float | None:
        """When it last answered; where it never did, when it was taken over."""
        return self.last_contact if self.last_contact is not None else self.since

    def due(self, now: float) -> bool:
        """Returns whether there is something to publish: a change, a heartbeat, or silence that lasted."""
        self._judge(now)
        if self.health is Health.UNREACHABLE:
            return self.changed
        if not self.whole:
            return False
        if self.changed or self.cache.has_changes:
            return True
        expiry = self.cache.next_expiry(self.last_published or 0.0)
        return (expiry is not None and expiry <= now) or self._beats(now)

    def next_due(self, now: float) -> float | None:
        """Returns when something will be due although nothing changes: heartbeat, silence, end of a claim."""
        times = [self.cache.next_expiry(now)]
        if self.silent_since is not None and self.health is Health.READY:
            times.append(self.silent_since + self.timing.unreachable_after)
        if self.whole and self.last_published is not None and self.health is Health.READY:
            times.append(self.last_published + self.timing.heartbeat)
        return min((t for t in times if t is not None), default=None)

    def publish(self, now: float) -> Publication:
        """Returns snapshot n+1. Call it when `due`."""
        self._judge(now)
        self.cache.expire_claims(now)
        dirty_classes, dirty_pods = self.cache.take_changes()
        if self.everything:  # the first look of a new owner is whole
            dirty_classes, dirty_pods = set(self.cache.class_names()), set(self.cache.workload_keys())
        self.n += 1
        self.everything = not self.whole
        snapshot = SnapshotId(self.incarnation, self.epoch, self.n)
        silent = self.health is Health.UNREACHABLE and not self.whole
        names = set(self.cache.class_names()) if not silent else set(self.published_classes)
        keys = set(self.cache.workload_keys()) if not silent else set(self.published_pods)
        removed_classes = tuple(sorted(self.published_classes - names))
        removed_pods = tuple(sorted(self.published_pods - keys))
        found = (self.cache.node_class(name) for name in sorted(dirty_classes))
        classes = tuple(ClassInventory(self.cluster, snapshot, c) for c in found if c is not None)
        pods = tuple(
            WorkloadPods(self.cluster, key, snapshot, self.cache.pods_of(key, now))
            for key in sorted(dirty_pods)
            if key in keys
        )
        self.published_classes, self.published_pods = names, keys
        self.changed = False
        self.last_published = now
        closing = InventorySummary(
            cluster=self.cluster,
            snapshot=snapshot,
            observed_at=self.last_contact or 0.0,
            health=self.health,
            message=self.message,
            apis=self.apis,
            namespaces=self.namespaces,
            virtual_nodes=self.cache.virtual_nodes(),
            classes=tuple(sorted(names)),
            pods=tuple(sorted(keys)),
            quotas=self.quotas,
        )
        return Publication(removed_classes, removed_pods, classes, pods, closing)

    def _beats(self, now: float) -> bool:
        """A heartbeat vouches for the cluster, so it needs contact within the last heartbeat."""
        if self.last_published is None or self.last_contact is None:
            return False
        return now - self.last_published >= self.timing.heartbeat and self.last_contact > self.last_published

    def _judge(self, now: float) -> None:
        if self.health is Health.READY and self.silent_since is not None:
            silence = now - self.silent_since
            if silence >= self.timing.unreachable_after:
                self.health = Health.UNREACHABLE
                self.message = f"no answer from the cluster's API for {silence:.0f} s"
                self.changed = True
