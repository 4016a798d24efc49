"""Records of every topic: bytes to the domain's values and back.

`parse_<what>(record)` returns a value of `gpufleet.model` or raises `RecordError`; the Kafka key must be the identity
that the value states. `dump_<what>(value)` returns compact JSON with sorted keys: the same value has the same bytes.
A tombstone is a record without a value; it is not parsed. `CODECS` has both functions and the message of each topic.
The contract is `proto/`; the models in the `records_*` siblings are held to it by a test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gpufleet.model import kinds
from gpufleet.model.log import Claim, ClusterRegistration, HistoryEntry, LogId, Scale
from gpufleet.model.names import KIND_PREFIX
from gpufleet.model.placement import Assignment, AssignmentColumns, Eviction, Observation, Placement
from gpufleet.model.workload import Workload
from gpufleet.wire.documents import Policy
from gpufleet.wire.errors import RecordError, RecordReason
from gpufleet.wire.records_base import (
    MAX_VALUE_BYTES,
    PACKAGE,
    RecordLike,
    check_key,
    encode,
    read_json,
    read_object,
    value_of,
)
from gpufleet.wire.records_clusters import ClusterSpecMessage, cluster_object
from gpufleet.wire.records_decisions import (
    AssignmentMessage,
    EvictionMessage,
    ObservationMessage,
    PlacementMessage,
    eviction_object,
    observation_object,
)
from gpufleet.wire.records_documents import of_document, policy_identity, read_cluster, read_policy
from gpufleet.wire.records_inventory import InventoryMessage, InventoryPart, inventory_key, inventory_object
from gpufleet.wire.records_keys import (
    ASSIGNMENTS,
    CLUSTERS,
    EPOCHS,
    EVICTIONS,
    HISTORY,
    INVENTORY,
    LOG_KEY,
    OBSERVATIONS,
    PLACEMENTS,
    POLICIES,
    SCALES,
    WORKLOADS,
    assignment_key,
    claim_key,
    class_key,
    pods_key,
    policy_key,
    split_assignment_key,
    split_inventory_key,
)
from gpufleet.wire.records_spliced import assignment_bytes, assignments_bytes, placement_bytes
from gpufleet.wire.records_workloads import (
    ClaimMessage,
    DecisionMessage,
    PolicyMessage,
    ScaleMessage,
    WorkloadMessage,
    claim_object,
    decision_object,
    read_manifest,
    scale_object,
    workload_object,
)

__all__ = [
    "CODECS",
    "MAX_VALUE_BYTES",
    "Codec",
    "InventoryPart",
    "Policy",
    "RecordError",
    "RecordLike",
    "RecordReason",
    "assignment_key",
    "claim_key",
    "class_key",
    "codec_of",
    "dump_assignment",
    "dump_assignments",
    "dump_claim",
    "dump_cluster",
    "dump_eviction",
    "dump_history",
    "dump_inventory",
    "dump_manifest",
    "dump_observation",
    "dump_placement",
    "dump_policy",
    "dump_scale",
    "dump_workload",
    "inventory_key",
    "parse_assignment",
    "parse_claim",
    "parse_cluster",
    "parse_eviction",
    "parse_history",
    "parse_inventory",
    "parse_observation",
    "parse_placement",
    "parse_policy",
    "parse_scale",
    "parse_workload",
    "pods_key",
    "policy_identity",
    "policy_key",
    "policy_manifest",
    "split_assignment_key",
    "split_inventory_key",
    "take_kind",
]

# --- What operators and producers write -------------------------------------------------------------------------


def parse_cluster(record: RecordLike) -> ClusterRegistration:
    """Returns a registration, from the message or from a whole Cluster document. Raises RecordError."""
    value = read_manifest(value_of(record, "ClusterSpec", MAX_VALUE_BYTES))
    if "spec" in value or "kind" in value:
        registration = read_cluster(value, record.offset)
    else:
        registration = read_json(ClusterSpecMessage, encode(value)).to_model(record.offset)
    check_key(record, registration.name)
    return registration


def dump_cluster(registration: ClusterRegistration) -> bytes:
    """Returns the value of a registration."""
    return encode(cluster_object(registration), MAX_VALUE_BYTES)


def parse_workload(record: RecordLike) -> Workload:
    """Returns a workload, from the envelope or from a bare manifest in JSON or YAML.

    Version and arrival are the record's offset; the arrival of a workload that is known already is the reader's to
    keep. Raises RecordError, with the path below `manifest` where the envelope is used.
    """
    value = read_manifest(value_of(record, "Workload", MAX_VALUE_BYTES))
    manifest, uid, prefix = value, "", ""
    if "manifest" in value:
        message = read_object(WorkloadMessage, value)
        manifest, uid, prefix = message.manifest, message.uid, "manifest"
    try:
        workload = kinds.interpret(manifest, uid=uid, version=record.offset, arrival=record.offset)
    except kinds.KindError as error:
        raise of_document(error, manifest, prefix) from None
    check_key(record, workload.key)
    return workload


def dump_workload(workload: Workload, *, submitted_at: float = 0.0, submitted_by: str = "") -> bytes:
    """Returns the value of a workload. Raises RecordError above 512 KiB."""
    return dump_manifest(workload.manifest, uid=workload.uid, submitted_at=submitted_at, submitted_by=submitted_by)


def dump_manifest(
    manifest: Mapping[str, Any], *, uid: str = "", submitted_at: float = 0.0, submitted_by: str = ""
) -> bytes:
    """Returns the value of a workload that was not interpreted. Raises RecordError above 512 KiB."""
    return encode(workload_object(manifest, uid, submitted_at, submitted_by), MAX_VALUE_BYTES)


def policy_manifest(record: RecordLike) -> tuple[dict[str, Any], str]:
    """Returns the policy document in a record, and the path of the document in the value. Raises RecordError."""
    value = read_manifest(value_of(record, "Policy", MAX_VALUE_BYTES))
    if "manifest" in value:
        return read_object(PolicyMessage, value).manifest, "manifest"
    return value, ""


def parse_policy(record: RecordLike) -> Policy | None:
    """Returns a policy, from the envelope or from a bare document in JSON or YAML.

    None for a kind that this version decides without (FederatedHPA…). Raises RecordError.
    """
    manifest, prefix = policy_manifest(record)
    policy = read_policy(manifest, prefix, record.offset)
    check_key(record, policy_identity(manifest))
    return policy


def take_kind(record: RecordLike) -> bool:
    """Applies a record of a declared kind to this process; returns whether it knows anything new by it.

    One that cannot be read changes nothing: whoever decides says so.
    """
    if record.value is None:
        return kinds.withdraw((record.key or "").removeprefix(KIND_PREFIX))
    try:
        declaration = parse_policy(record)
    except RecordError:
        return False
    return isinstance(declaration, kinds.Declaration) and kinds.declare(declaration)


def dump_policy(manifest: Mapping[str, Any]) -> bytes:
    """Returns the value of a policy document. Raises RecordError above 512 KiB."""
    return encode({"manifest": manifest}, MAX_VALUE_BYTES)


def parse_scale(record: RecordLike) -> Scale:
    """Returns a scale. Raises RecordError."""
    message = read_json(ScaleMessage, value_of(record, "Scale", MAX_VALUE_BYTES))
    check_key(record, message.workload)
    return message.to_model(record.offset)


def dump_scale(scale: Scale) -> bytes:
    """Returns the value of a scale."""
    return encode(scale_object(scale), MAX_VALUE_BYTES)


# --- What services write ----------------------------------------------------------------------------------------


def parse_inventory(record: RecordLike) -> InventoryPart:
    """Returns a cluster's summary, one of its node classes, or the pods of a workload in it. Raises RecordError."""
    part = read_json(InventoryMessage, value_of(record, "Inventory")).to_model()
    check_key(record, inventory_key(part))
    return part


def dump_inventory(part: InventoryPart) -> bytes:
    """Returns the value of a part of a snapshot; its key is `inventory_key`."""
    return encode(inventory_object(part))


def parse_placement(record: RecordLike) -> Placement:
    """Returns a placement. Raises RecordError."""
    placement = read_json(PlacementMessage, value_of(record, "Placement")).to_model()
    check_key(record, placement.workload)
    return placement


def dump_placement(placement: Placement) -> bytes:
    """Returns the value of a placement."""
    return placement_bytes(placement)


def parse_assignment(record: RecordLike) -> Assignment:
    """Returns an assignment. Raises RecordError."""
    assignment = read_json(AssignmentMessage, value_of(record, "Assignment")).to_model()
    check_key(record, assignment_key(assignment.cluster, assignment.workload))
    return assignment


def dump_assignment(assignment: Assignment) -> bytes:
    """Returns the value of an assignment."""
    return assignment_bytes(assignment)


def dump_assignments(columns: AssignmentColumns) -> list[bytes]:
    """Returns the values of assignments of one decision, by cluster in the order of the columns."""
    return assignments_bytes(columns)


def parse_observation(record: RecordLike) -> Observation:
    """Returns an observation. Raises RecordError."""
    observation = read_json(ObservationMessage, value_of(record, "Observation")).to_model()
    check_key(record, assignment_key(observation.cluster, observation.workload))
    return observation


def dump_observation(observation: Observation) -> bytes:
    """Returns the value of an observation."""
    return encode(observation_object(observation))


def parse_eviction(record: RecordLike) -> Eviction:
    """Returns an eviction. Raises RecordError."""
    eviction = read_json(EvictionMessage, value_of(record, "Eviction")).to_model()
    check_key(record, eviction.workload)
    return eviction


def dump_eviction(eviction: Eviction) -> bytes:
    """Returns the value of an eviction."""
    return encode(eviction_object(eviction))


def parse_claim(record: RecordLike) -> Claim | LogId:
    """Returns a claim, or the log's id for the key `log`. Raises RecordError."""
    claim = read_json(ClaimMessage, value_of(record, "Claim")).to_model()
    check_key(record, LOG_KEY if isinstance(claim, LogId) else claim_key(claim.service, claim.shard))
    return claim


def dump_claim(claim: Claim | LogId) -> bytes:
    """Returns the value of a claim or of the log's id."""
    return encode(claim_object(claim))


def parse_history(record: RecordLike) -> HistoryEntry:
    """Returns a past decision and its inputs. Raises RecordError."""
    entry = read_json(DecisionMessage, value_of(record, "Decision")).to_model()
    check_key(record, entry.workload)
    return entry


def dump_history(entry: HistoryEntry) -> bytes:
    """Returns the value of a past decision. Raises RecordError above 1 MB: leave documents out and say so."""
    return encode(decision_object(entry))


# --- By topic ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Codec:
    """How the values of a topic are read and written; ``key`` gives the Kafka key of what ``dump`` takes.

    ``dump`` takes what ``parse`` returns, but for policies, where it takes the document.
    """

    message: str
    parse: Callable[[RecordLike], Any]
    dump: Callable[[Any], bytes]
    key: Callable[[Any], str]

    @property
    def event_type(self) -> str:
        """The `ce_type` header: the message's full name."""
        return f"{PACKAGE}.{self.message}"


def _claim_key(claim: Claim | LogId) -> str:
    return LOG_KEY if isinstance(claim, LogId) else claim_key(claim.service, claim.shard)


def _workload(value: Any) -> str:
    key: str = value.workload
    return key


def _assignment(value: Any) -> str:
    return assignment_key(value.cluster, value.workload)


CODECS: Mapping[str, Codec] = {
    CLUSTERS: Codec("ClusterSpec", parse_cluster, dump_cluster, lambda value: str(value.name)),
    POLICIES: Codec("Policy", parse_policy, dump_policy, policy_identity),
    WORKLOADS: Codec("Workload", parse_workload, dump_workload, lambda value: str(value.key)),
    SCALES: Codec("Scale", parse_scale, dump_scale, _workload),
    INVENTORY: Codec("Inventory", parse_inventory, dump_inventory, inventory_key),
    PLACEMENTS: Codec("Placement", parse_placement, dump_placement, _workload),
    ASSIGNMENTS: Codec("Assignment", parse_assignment, dump_assignment, _assignment),
    OBSERVATIONS: Codec("Observation", parse_observation, dump_observation, _assignment),
    EVICTIONS: Codec("Eviction", parse_eviction, dump_eviction, _workload),
    EPOCHS: Codec("Claim", parse_claim, dump_claim, _claim_key),
    HISTORY: Codec("Decision", parse_history, dump_history, _workload),
}


def codec_of(topic: str) -> Codec:
    """Returns the codec of a topic, whose name may have a prefix. Raises RecordError for one that is not gpufleet's."""
    codec = CODECS.get("gpufleet." + topic.rpartition("gpufleet.")[2])
    if codec is None:
        raise RecordError(
            RecordReason.UNKNOWN_TOPIC, "", f"{topic!r} is no topic of gpufleet", f"expected {', '.join(CODECS)}"
        )
    return codec
