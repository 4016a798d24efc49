"""What producers and operators write besides clusters, and what the log keeps for itself: the messages of
`workload.proto`, `policy.proto`, `claim.proto` and `decision.proto`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import Field

from gpufleet.model.log import Claim, HistoryEntry, LogId, Scale
from gpufleet.model.placement import Version
from gpufleet.wire.errors import RecordError, RecordReason
from gpufleet.wire.records_base import (
    Count,
    SchemaVersion,
    Struct,
    Text,
    Time,
    Wire,
    compact,
    decode,
    not_json,
    render_time,
    time_or_none,
)
from gpufleet.wire.records_decisions import PlacementMessage, placement_object

# More members than this, with YAML aliases written out, are an attack and no manifest.
MAX_MEMBERS = 200_000


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
    replicas: Count = 0
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
        }
    )


# --- Manifests as anybody writes them ---------------------------------------------------------------------------


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML without dates: Kubernetes knows none, so `2026-01-31` stays text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_manifest(value: bytes) -> dict[str, Any]:
    """Returns the object in a value that is JSON, or one YAML document. Raises RecordError."""
    try:
        content = decode(value)
    except RecordError as error:
        if value.lstrip()[:1] in (b"{", b"["):
            raise
        content = _read_yaml(value, error)
    if not isinstance(content, dict):
        raise RecordError(
            RecordReason.WRONG_TYPE,
            "",
            f"the value is {type(content).__name__ if content is not None else 'empty'}, not an object",
            "write a Kubernetes manifest as one JSON object, or as one YAML document",
        )
    # Some languages write the whole numbers of a google.protobuf.Struct as 9.0.
    return _whole_numbers(content) if b".0" in value else content


def _read_yaml(value: bytes, json_error: RecordError) -> Any:
    try:
        content = yaml.load(value.decode("utf-8"), _Loader)
    except UnicodeDecodeError:
        raise not_json("it is not UTF-8 text") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RecordError(
            RecordReason.NOT_JSON,
            "",
            f"the value is neither JSON nor one YAML document: {where}{problem}",
            "write one manifest per record",
        ) from None
    except (RecursionError, ValueError) as error:
        raise not_json(str(error) or "nested too deeply") from None
    if not isinstance(content, dict):
        raise json_error
    if _members(content, {}) > MAX_MEMBERS:
        raise RecordError(
            RecordReason.TOO_LARGE, "", f"the manifest has more than {MAX_MEMBERS} members", "write fewer aliases"
        )
    return content


def _members(node: Any, known: dict[int, int]) -> int:
    """Counts members with YAML aliases written out, visiting each shared node once; a cycle counts as too many."""
    if not isinstance(node, dict | list):
        return 1
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = MAX_MEMBERS + 1
    children = node.values() if isinstance(node, dict) else node
    total = 1 + sum(_members(child, known) for child in children)
    known[id(node)] = total
    return total


def _whole_numbers(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _whole_numbers(item) for name, item in node.items()}
    if isinstance(node, list):
        return [_whole_numbers(item) for item in node]
    if isinstance(node, float) and node.is_integer() and abs(node) <= 2**53:
        return int(node)
    return node
