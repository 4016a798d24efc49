"""Documents that are the value of a record: policies, and clusters where an operator sends the whole document.

The documents are read by `gpufleet.wire.documents`; here their findings become a `RecordError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gpufleet.model.kinds import KindError
from gpufleet.model.log import ClusterRegistration
from gpufleet.wire import documents, documents_cluster
from gpufleet.wire.documents import Ignored, Policy
from gpufleet.wire.documents_schema import Findings
from gpufleet.wire.errors import RecordError, RecordReason
from gpufleet.wire.records_base import below
from gpufleet.wire.records_keys import policy_key

_WITHOUT_NAMESPACE = ("ClusterPropagationPolicy", "ClusterOverridePolicy", "PriorityClass", "Freeze", "WorkloadKind")


def read_policy(manifest: Mapping[str, Any], prefix: str, version: int) -> Policy | None:
    """Returns the policy in a document, None for a kind that this version decides without.

    ``prefix`` is where the document is in the value, ``version`` the offset of the record. Raises RecordError for
    the first problem.
    """
    try:
        policy, _ = documents.read_policy(manifest, version)
    except KindError as error:
        raise of_document(error, manifest, prefix) from None
    return None if isinstance(policy, Ignored) else policy


def read_cluster(document: Mapping[str, Any], version: int) -> ClusterRegistration:
    """Returns the registration in a whole Cluster document; its `status` says nothing here. Raises RecordError."""
    kind, api_version = document.get("kind"), document.get("apiVersion")
    if kind != "Cluster":
        raise RecordError(RecordReason.UNKNOWN_KIND, "kind", f"{kind!r} is not a Cluster", "write kind: Cluster")
    if api_version not in documents_cluster.API_VERSIONS:
        raise RecordError(
            RecordReason.UNSUPPORTED_VERSION,
            "apiVersion",
            f"{api_version!r} has no Cluster that is known here",
            f"use {' or '.join(documents_cluster.API_VERSIONS)}",
        )
    findings = Findings()
    read = documents_cluster.read({name: part for name, part in document.items() if name != "status"}, findings)
    if findings.errors:
        raise of_document(KindError(*findings.errors), document, "")
    if read is None:
        raise RecordError(RecordReason.INVALID_VALUE, "", "the document cannot be read")
    return replace(read.registration, version=version)


def of_document(error: KindError, manifest: Mapping[str, Any], prefix: str) -> RecordError:
    """Returns the error of a record for the problems of the document in it."""
    reason = RecordReason.INVALID_VALUE
    if error.path in ("kind", "apiVersion"):
        reason = RecordReason.UNKNOWN_KIND if error.path == "kind" else RecordReason.UNSUPPORTED_VERSION
        if not manifest.get(error.path):
            reason = RecordReason.MISSING_FIELD
    more = len(error.problems) - 1
    message = error.message + (f" (and {more} more)" if more else "")
    return RecordError(reason, below(prefix, error.path), message, error.hint)


def policy_identity(manifest: Mapping[str, Any]) -> str:
    """Returns the key of a policy document: ``kind/namespace/name``."""
    metadata = manifest.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    kind = str(manifest.get("kind", ""))
    namespace = "" if kind in _WITHOUT_NAMESPACE else str(metadata.get("namespace") or "default")
    return policy_key(kind, namespace, str(metadata.get("name", "")))
