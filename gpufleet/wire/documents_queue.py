"""Queue of kube-queue (specification 13.4): how the queue of one quota is worked off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from gpufleet.model import kinds
from gpufleet.model.kinds.reading import join
from gpufleet.model.quota import QUEUE_NAMESPACE, QueueRule
from gpufleet.wire.documents_parts import ObjectDoc, name_in
from gpufleet.wire.documents_schema import INT32_MAX, Doc, Findings, check, refuse_placeholders

API_VERSIONS = ("scheduling.x-k8s.io/v1alpha1",)
FULL_NAME = "kube-queue/quota-fullname"
_POLICIES = ("Priority", "Block", "FIFO", "Round")
# What kube-queue's own queues may say besides, and why it changes nothing here.
_WITHOUT_EFFECT = {
    "kube-queue/wait-for-pods-running": "a place is held until its pods run in any case",
    "kube-queue/enable-queueunit-preemption": "priority and quota decide who yields",
    "kube-queue/max-depth": "queues are not bounded",
}


class QueueSpecDoc(Doc):
    """The queue."""

    queue_policy: str = "Priority"
    priority: int | None = Field(default=None, ge=-INT32_MAX - 1, le=INT32_MAX)
    priority_class_name: Any = None


class QueueDoc(ObjectDoc):
    """The whole document."""

    spec: QueueSpecDoc = Field(default_factory=QueueSpecDoc)
    status: Any = None


def read(manifest: Mapping[str, Any], findings: Findings, version: int = 0) -> QueueRule | None:
    """Returns a queue; ``version`` is the offset of its record. None where too little of it is right."""
    refuse_placeholders(manifest, findings)
    doc = check(QueueDoc, manifest, findings)
    if doc is None:
        return None
    name = name_in(doc.metadata, findings, QUEUE_NAMESPACE, "queues take effect")
    policy = doc.spec.queue_policy
    if policy not in _POLICIES:
        findings.error("spec.queuePolicy", f"is {policy!r}", "use Priority or Block")
    elif policy in ("FIFO", "Round"):
        findings.warn("spec.queuePolicy", f"{policy} is read as Priority: by priority, then by arrival")
    if doc.spec.priority_class_name is not None:
        findings.warn("spec.priorityClassName", "is ignored", "give the queue's priority as a number in spec.priority")
    for annotation, why in _WITHOUT_EFFECT.items():
        if annotation in doc.metadata.annotations:
            findings.warn(join("metadata.annotations", annotation), f"has no effect: {why}")
    return QueueRule(
        name=name,
        quota=doc.metadata.annotations.get(FULL_NAME, ""),
        blocking=policy == "Block",
        priority=doc.spec.priority or 0,
        version=version,
        digest=kinds.digest(manifest),
    )
