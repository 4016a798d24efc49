"""Kafka keys: the identity of a record, as text."""

from __future__ import annotations

LOG_KEY = "log"

CLUSTERS = "gpufleet.clusters"
POLICIES = "gpufleet.policies"
WORKLOADS = "gpufleet.workloads"
SCALES = "gpufleet.scales"
INVENTORY = "gpufleet.inventory"
PLACEMENTS = "gpufleet.placements"
ASSIGNMENTS = "gpufleet.assignments"
OBSERVATIONS = "gpufleet.observations"
EVICTIONS = "gpufleet.evictions"
EPOCHS = "gpufleet.epochs"
HISTORY = "gpufleet.history"


def policy_key(kind: str, namespace: str, name: str) -> str:
    """Returns ``kind/namespace/name``; the namespace is empty for kinds without one."""
    return f"{kind}/{namespace}/{name}"


def assignment_key(cluster: str, workload: str) -> str:
    """Returns ``cluster/namespace/Kind/name``; observations have the same keys."""
    return f"{cluster}/{workload}"


def split_assignment_key(key: str) -> tuple[str, str]:
    """Returns cluster and workload of a key of assignments or observations. Raises ValueError."""
    cluster, slash, workload = key.partition("/")
    if not slash or not cluster or workload.count("/") != 2:
        raise ValueError(f"{key!r} is not cluster/namespace/Kind/name")
    return cluster, workload


def class_key(cluster: str, node_class: str) -> str:
    """Returns ``cluster/class/<name>`` of the inventory topic."""
    return f"{cluster}/class/{node_class}"


def pods_key(cluster: str, workload: str) -> str:
    """Returns ``cluster/pods/<workload key>`` of the inventory topic."""
    return f"{cluster}/pods/{workload}"


def split_inventory_key(key: str) -> tuple[str, str, str]:
    """Returns cluster, part (``""``, ``class`` or ``pods``) and the part's name. Raises ValueError."""
    cluster, slash, rest = key.partition("/")
    if cluster and not slash:
        return cluster, "", ""
    part, _, name = rest.partition("/")
    if not cluster or not name or part not in ("class", "pods"):
        raise ValueError(f"{key!r} is not cluster, cluster/class/<name> or cluster/pods/<workload>")
    return cluster, part, name


def claim_key(service: str, shard: int | None = None) -> str:
    """Returns ``service`` or ``service/shard``; the log's own id has the key ``log``."""
    return service if shard is None else f"{service}/{shard}"
