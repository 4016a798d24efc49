"""Snapshots are whole: a reader stages a cluster's records until the closing one (rule 2 of the design)."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpufleet.model.cluster import Inventory, NodeClass, SnapshotId, WorkloadPods
from gpufleet.model.log import ClassInventory, InventorySummary

InventoryPart = InventorySummary | ClassInventory | WorkloadPods


@dataclass(frozen=True, slots=True)
class Closed:
    """A whole snapshot: the cluster, and which workloads' pods are not what they were in the last one."""

    inventory: Inventory
    pods: tuple[WorkloadPods, ...] = ()
    pods_gone: tuple[str, ...] = ()


@dataclass(slots=True)
class _Cluster:
    """Records of one cluster. ``classes`` and ``pods`` hold the newest record of each key, closed or not."""

    closed: SnapshotId | None = None
    classes: dict[str, tuple[SnapshotId, NodeClass]] = field(default_factory=dict)
    pods: dict[str, WorkloadPods] = field(default_factory=dict)
    shown: dict[str, WorkloadPods] = field(default_factory=dict)  # as of the last closed snapshot


class Staging:
    """Takes parts of snapshots in the order of the log and gives each snapshot when it is closed.

    Parts of a lower epoch than the last closed snapshot's, or of an older snapshot, are ignored. A closing record
    that names a part which is not there (it was compacted away because a later snapshot had begun) closes nothing:
    the next one does.
    """

    def __init__(self) -> None:
        self._clusters: dict[str, _Cluster] = {}

    def take(self, part: InventoryPart) -> Closed | None:
        """Takes a record; returns the snapshot that it closes, if it does."""
        known = self._clusters.setdefault(part.cluster, _Cluster())
        if known.closed is not None and _order(part.snapshot) < _order(known.closed):
            return None
        match part:
            case ClassInventory():
                known.classes[part.node_class.name] = (part.snapshot, part.node_class)
            case WorkloadPods():
                known.pods[part.workload] = part
            case InventorySummary():
                return self._close(known, part)
        return None

    def gone(self, cluster: str) -> None:
        """Forgets a cluster whose own record was tombstoned."""
        self._clusters.pop(cluster, None)

    def _close(self, known: _Cluster, summary: InventorySummary) -> Closed | None:
        same = summary.snapshot.incarnation
        classes = {n: c for n in summary.classes if (c := known.classes.get(n)) and c[0].incarnation == same}
        pods = {w: p for w in summary.pods if (p := known.pods.get(w)) and p.snapshot.incarnation == same}
        if len(classes) < len(set(summary.classes)) or len(pods) < len(set(summary.pods)):
            return None
        known.closed = summary.snapshot
        known.classes = classes
        known.pods = pods
        before, known.shown = known.shown, dict(pods)
        inventory = Inventory(
            cluster=summary.cluster,
            snapshot=summary.snapshot,
            observed_at=summary.observed_at,
            health=summary.health,
            message=summary.message,
            apis=summary.apis,
            namespaces=summary.namespaces,
            node_classes=tuple(node_class for _, (_, node_class) in sorted(classes.items())),
            virtual_nodes=summary.virtual_nodes,
            quotas=summary.quotas,
        )
        changed = (p for w, p in pods.items() if (was := before.get(w)) is not p and was != p)
        return Closed(
            inventory,
            tuple(sorted(changed, key=lambda p: p.workload)),
            tuple(sorted(before.keys() - pods.keys())),
        )


def _order(snapshot: SnapshotId) -> tuple[int, int]:
    return snapshot.epoch, snapshot.n
