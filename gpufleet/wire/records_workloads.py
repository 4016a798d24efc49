"""What producers and operators write besides clusters, and what the log keeps for itself: the messages of
`workload.proto`, `policy.proto`, `claim.proto` and `decision.proto`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from gpufleet.model.kinds import MAX_REPLICAS
from gpufleet.model.log import Claim, HistoryEntry, LogId, Scale
from gpufleet.model.placement import Version
from gpufleet.wire import yaml
from gpufleet.wire.errors import RecordError, RecordReason
from gpufleet.wire.records_base import (
    MAX_VALUE_BYTES,
    Count,
    SchemaVersion,
    Struct,
    Text,
    Time,
    Wire,
    check_size,
    compact,
    decode,
    render_time,
    time_or_none,
)
from gpufleet.wire.records_decisions import PlacementMessage, placement_object


class WorkloadMessage(Wire):
    """`Workload`: a manifest in its envelope."""

    schema_version: SchemaVersion = ""
    manifest: Struct
    uid: str = ""
    submitted_at: Time = 0.0
    submitted_by: str = ""


def workload_object(
    manifest: Mapping[str, Any], uid: str = "", submitted_at: float = 0.0, submitted_by: str = ""
) -> dict[str, Any]:
    """Returns the message as a plain object; ``submitted_at`` in epoch seconds."""
    return {
        "manifest": manifest,
        **compact({"uid": uid, "submittedAt": time_or_none(submitted_at), "submittedBy": submitted_by}),
    }


class PolicyMessage(Wire):
    """`Policy`: a policy document in its envelope."""

    schema_version: SchemaVersion = ""
    manifest: Struct


class ScaleMessage(Wire):
    """`Scale`: the total that overrides a manifest's replicas."""

    schema_version: SchemaVersion = ""
    workload: Text
    replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] = 0
    requested_by: str = ""
    requested_at: Time = 0.0

    def to_model(self, version: int) -> Scale:
        """Returns the domain's scale; ``version`` is the record's offset."""
        return Scale(self.workload, self.replicas, self.requested_by, self.requested_at, version)


def scale_object(scale: Scale) -> dict[str, Any]:
    """Returns the message as a plain object."""
    return compact(
        {
            "workload": scale.workload,
            "replicas": scale.replicas,
            "requestedBy": scale.requested_by,
            "requestedAt": time_or_none(scale.requested_at),
        }
    )


class ClaimMessage(Wire):
    """`Claim`: who decides; for the key `log`, the id of this log."""

    service: str = ""
    shard: Count | None = None
    instance: str = ""
    claimed_at: Time = 0.0
    log_id: str = ""

    def to_model(self) -> Claim | LogId:
        """Returns the claim or the log's id. Raises RecordError for what is neither or both."""
        if self.log_id:
            if self.service or self.instance:
                raise RecordError(
                    RecordReason.INVALID_VALUE, "logId", "the record is both a claim and the log's id", "write two"
                )
            return LogId(self.log_id)
        for name in ("service", "instance"):
            if not getattr(self, name):
                raise RecordError(
                    RecordReason.MISSING_FIELD, name, "the field is missing", "a claim names service and instance"
                )
        return Claim(self.service, self.instance, self.shard, self.claimed_at)


def claim_object(claim: Claim | LogId) -> dict[str, Any]:
    """Returns the message as a plain object."""
    if isinstance(claim, LogId):
        return {"logId": claim.id}
    value = compact({"service": claim.service, "instance": claim.instance, "claimedAt": time_or_none(claim.claimed_at)})
    if claim.shard is not None:
        value["shard"] = claim.shard
    return value


class DecisionMessage(Wire):
    """`Decision`: the inputs of a decision and its outcome."""

    workload: Text
    epoch: Count = 0
    version: Count = 0
    decided_at: Time
    trigger: str = ""
    documents: tuple[Struct, ...] = ()
    settings: Struct = Field(default_factory=dict)
    placement: PlacementMessage | None = None
    omitted: tuple[str, ...] = ()
    state: Struct = Field(default_factory=dict)
    because: str = ""

    def to_model(self) -> HistoryEntry:
        """Returns the domain's history entry."""
        return HistoryEntry(
            workload=self.workload,
            version=Version(self.epoch, self.version),
            decided_at=self.decided_at,
            trigger=self.trigger,
            documents=self.documents,
            settings=self.settings,
            placement=None if self.placement is None else self.placement.to_model(),
            omitted=self.omitted,
            state=self.state,
            because=self.because,
        )


def decision_object(entry: HistoryEntry) -> dict[str, Any]:
    """Returns the message as a plain object."""
    return compact(
        {
            "workload": entry.workload,
            "epoch": entry.version.epoch,
            "version": entry.version.version,
            "decidedAt": render_time(entry.decided_at),
            "trigger": entry.trigger,
            "documents": entry.documents,
            "settings": entry.settings,
            "placement": entry.placement and placement_object(entry.placement),
            "omitted": entry.omitted,
            "state": entry.state,
            "because": entry.because,
        }
    )


# --- Manifests as anybody writes them ---------------------------------------------------------------------------


def read_manifest(value: bytes) -> dict[str, Any]:
    """Returns the object in a value that is JSON, or one YAML document. Raises RecordError."""
    try:
        content = decode(value)
    except RecordError:
        if value.lstrip()[:1] in (b"{", b"["):
            raise
        content = _read_yaml(value)
    if not isinstance(content, dict):
        raise RecordError(
            RecordReason.WRONG_TYPE,
            "",
            f"the value is {type(content).__name__ if content is not None else 'empty'}, not an object",
            "write a Kubernetes manifest as one JSON object, or as one YAML document",
        )
    # Some languages write the whole numbers of a google.protobuf.Struct as 9.0.
    return _whole_numbers(content) if b".0" in value else content


def _read_yaml(value: bytes) -> Any:
    documents = yaml.load(value)
    errors = [error for document in documents for error in document.errors]
    if errors:
        error = errors[0]
        where = f"line {error.line}: " if error.line > 1 else ""
        raise RecordError(
            RecordReason.NOT_JSON,
            error.path,
            f"the value is neither JSON nor YAML: {where}{error.message}",
            error.hint or "write a Kubernetes manifest as one JSON object, or as one YAML document",
        )
    if len(documents) != 1:
        raise RecordError(
            RecordReason.NOT_JSON,
            "",
            f"the value has {len(documents)} YAML documents" if documents else "the value is empty",
            "write one manifest per record",
        )
    manifest = documents[0].manifest
    try:
        size = len(json.dumps(manifest, allow_nan=False, ensure_ascii=False))
    except ValueError:
        raise RecordError(RecordReason.INVALID_VALUE, "", "a number is infinite or not a number") from None
    check_size(size, MAX_VALUE_BYTES)  # with its aliases written out
    return manifest


def _whole_numbers(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _whole_numbers(item) for name, item in node.items()}
    if isinstance(node, list):
        return [_whole_numbers(item) for item in node]
    if isinstance(node, float) and node.is_integer() and abs(node) <= 2**53:
        return int(node)
    return node
