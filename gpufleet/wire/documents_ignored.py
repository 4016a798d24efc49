"""Documents that are left out: of kinds that are not supported yet, and of those that people keep beside the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gpufleet.wire.documents_schema import Findings

_ANY = ("*",)
# Kinds by API group: of Kubernetes, and of Karmada's control plane.
_KINDS: Mapping[str, tuple[str, ...]] = {
    "": ("Service", "Namespace", "PersistentVolume", "ResourceQuota", "LimitRange"),
    "apps": ("DaemonSet",),
    "autoscaling": _ANY,
    "policy": _ANY,
    "networking.k8s.io": _ANY,
    "gateway.networking.k8s.io": _ANY,
    "rbac.authorization.k8s.io": _ANY,
    "storage.k8s.io": _ANY,
    "apiextensions.k8s.io": _ANY,
    "admissionregistration.k8s.io": _ANY,
    "monitoring.coreos.com": _ANY,
    "policy.karmada.io": ("FederatedResourceQuota", "ClusterTaintPolicy"),
    "autoscaling.karmada.io": ("CronFederatedHPA",),
    "apps.karmada.io": _ANY,
    "work.karmada.io": _ANY,
    "networking.karmada.io": _ANY,
    "config.karmada.io": _ANY,
    "remedy.karmada.io": _ANY,
    "search.karmada.io": _ANY,
    "multicluster.x-k8s.io": _ANY,
}


@dataclass(frozen=True, slots=True)
class Ignored:
    """A document of a kind that is known, but not supported yet, or that is nobody's business here (``outside``)."""

    api_version: str
    kind: str
    namespace: str
    name: str
    outside: bool = False


def outside(api_version: str, kind: str) -> bool:
    """Returns whether a kind is known to be nobody's business here."""
    group = api_version.rpartition("/")[0]
    kinds = _KINDS.get(group, ())
    return kind in kinds or kinds is _ANY


def read_later(manifest: Mapping[str, Any], findings: Findings, _: int) -> Ignored:
    """Returns a document that a later version may read."""
    findings.warn("kind", f"{manifest.get('kind')} is not supported yet; the document is ignored")
    return _ignored(manifest)


def read_outside(manifest: Mapping[str, Any], findings: Findings, _: int) -> Ignored:
    """Returns a document that is nobody's business here."""
    message = f"{manifest.get('kind')} is neither placed nor read here; the document is ignored"
    findings.warn("kind", message, "apply it to the clusters by other means")
    return replace(_ignored(manifest), outside=True)


def _ignored(manifest: Mapping[str, Any]) -> Ignored:
    metadata = manifest.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    namespace, name = (str(metadata.get(field) or "") for field in ("namespace", "name"))
    return Ignored(str(manifest.get("apiVersion")), str(manifest.get("kind")), namespace, name)
