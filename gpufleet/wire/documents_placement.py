"""The Placement document: what `plan`, `simulate` and `get` print, and what `plan` takes as the state to go on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from gpufleet.model.names import API_VERSION, MAIN
from gpufleet.model.placement import ClusterShare, Placement, Slot, Source, Version
from gpufleet.model.reasons import Code, Reason, Verdict
from gpufleet.wire.documents_schema import Count, Doc, Findings, check, nearest

API_VERSIONS = (API_VERSION,)
_SOURCES = tuple(source.value for source in Source)


@dataclass(frozen=True, slots=True)
class PlacementDocument:
    """A placement, and by cluster how many of its pods are bound; a cluster that is not listed has all bound."""

    placement: Placement
    bound: tuple[tuple[str, int], ...] = ()

    def bound_in(self, cluster: str) -> int:
        """Returns how many pods are bound in a cluster."""
        share = self.placement.share(cluster)
        return dict(self.bound).get(cluster, share.replicas if share else 0)


class SlotDoc(Doc):
    """Where room was counted, as far as it is known."""

    component: str = MAIN
    node_class: str = ""
    count: Count
    source: Literal["running", "elastic", "virtual"] = "running"
    unit: Count | None = None
    variant: str = ""


class AssignmentDoc(Doc):
    """One cluster's part."""

    cluster: str = Field(min_length=1)
    replicas: Count
    bound: Count | None = None
    components: dict[str, Count] = Field(default_factory=dict)
    sources: dict[str, Count] = Field(default_factory=dict)
    slots: list[SlotDoc] = Field(default_factory=list)


class ReasonDoc(Doc):
    """Why not (all)."""

    cluster: str = ""
    code: str
    message: str = ""
    needs: str = ""


class PlacementDoc(Doc):
    """The whole document."""

    api_version: str
    kind: str
    workload: str
    verdict: str = Verdict.SCHEDULED.value
    replicas: Count | None = None
    placed: Count | None = None
    unplaced: Count | None = None
    assignments: list[AssignmentDoc] = Field(default_factory=list)
    reasons: list[ReasonDoc] = Field(default_factory=list)
    policy: str = ""
    group: str = ""
    queue_position: Count | None = None
    epoch: Count = 0
    version: Count = 0
    uid: str = ""


def read(manifest: Mapping[str, Any], findings: Findings) -> PlacementDocument | None:
    """Returns a Placement document; None where too little of it is right."""
    doc = check(PlacementDoc, manifest, findings)
    if doc is None:
        return None
    if doc.workload.count("/") != 2 or not all(doc.workload.split("/")):
        findings.error("workload", f"is {doc.workload!r}", "write namespace/Kind/name, such as test/Deployment/llm")
    verdicts = [verdict.value for verdict in Verdict]
    if doc.verdict not in verdicts:
        findings.error("verdict", f"is {doc.verdict!r}", f"use one of {', '.join(verdicts)}")
    shares: list[ClusterShare] = []
    bound: list[tuple[str, int]] = []
    for index, item in enumerate(doc.assignments):
        path = f"assignments[{index}]"
        if item.cluster in [share.cluster for share in shares]:
            findings.error(f"{path}.cluster", f"{item.cluster!r} is listed twice")
        shares.append(_share(item, path, findings))
        if item.bound is not None:
            if item.bound > item.replicas:
                findings.error(f"{path}.bound", f"is {item.bound}, more than the {item.replicas} replicas")
            bound.append((item.cluster, item.bound))
    placement = Placement(
        workload=doc.workload,
        version=Version(doc.epoch, doc.version),
        verdict=Verdict(doc.verdict) if doc.verdict in verdicts else Verdict.SCHEDULED,
        replicas=_replicas(doc, sum(item.replicas for item in doc.assignments), findings),
        shares=tuple(sorted(shares, key=lambda share: share.cluster)),
        reasons=_reasons(doc.reasons, findings),
        policy=doc.policy,
        uid=doc.uid,
        queue_position=doc.queue_position,
        group=doc.group,
    )
    return PlacementDocument(placement, tuple(sorted(bound)))


def _replicas(doc: PlacementDoc, assigned: int, findings: Findings) -> int:
    """Returns the pods wanted, checked against what else the document says of them."""
    if doc.placed is not None and doc.placed != assigned:
        findings.error("placed", f"is {doc.placed}, but the assignments have {assigned}")
    if doc.replicas is None:
        return assigned + (doc.unplaced or 0)
    if doc.replicas < assigned:
        findings.error("replicas", f"is {doc.replicas}, but the assignments have {assigned}")
    elif doc.unplaced is not None and doc.unplaced != doc.replicas - assigned:
        findings.error(
            "unplaced", f"is {doc.unplaced}, but {doc.replicas - assigned} of {doc.replicas} have no cluster"
        )
    return doc.replicas


def _share(doc: AssignmentDoc, path: str, findings: Findings) -> ClusterShare:
    components = doc.components or {MAIN: doc.replicas}
    total = sum(components.values())
    if total != doc.replicas:
        findings.error(f"{path}.components", f"add up to {total}, but replicas is {doc.replicas}")
    for name in doc.sources:
        if name not in _SOURCES:
            findings.error(f"{path}.sources.{name}", "is not a source", f"use {', '.join(_SOURCES)}")
    counted = sum(doc.sources.values())
    if doc.sources and counted != doc.replicas:
        findings.error(f"{path}.sources", f"add up to {counted}, but replicas is {doc.replicas}")
    if doc.slots:
        slots = tuple(Slot(s.component, s.node_class, s.count, Source(s.source), s.unit, s.variant) for s in doc.slots)
    else:
        slots = _slots(components, {name: doc.sources[name] for name in _SOURCES if doc.sources.get(name)})
    return ClusterShare(doc.cluster, tuple(sorted(components.items())), slots)


def _slots(components: Mapping[str, int], sources: Mapping[str, int]) -> tuple[Slot, ...]:
    """Returns slots on unknown node classes; the document says only how many pods each source had room for."""
    left = dict(sources) or {Source.RUNNING.value: sum(components.values())}
    slots = []
    for component, wanted in sorted(components.items()):
        for source in _SOURCES:
            count = min(wanted, left.get(source, 0))
            if count:
                slots.append(Slot(component, "", count, Source(source)))
                left[source] -= count
                wanted -= count
    return tuple(slots)


def _reasons(docs: list[ReasonDoc], findings: Findings) -> tuple[Reason, ...]:
    known = tuple(code.value for code in Code)
    reasons = []
    for index, doc in enumerate(docs):
        if doc.code in known:
            reasons.append(Reason(Code(doc.code), doc.message, doc.cluster, doc.needs))
        else:
            near = nearest(doc.code, known)
            path = f"reasons[{index}].code"
            findings.warn(path, f"{doc.code!r} is not a known code", f"did you mean {near}?" if near else "")
    return tuple(reasons)


def dump(placement: Placement, bound: Mapping[str, int] | None = None, *, slots: bool = False) -> dict[str, Any]:
    """Returns the Placement document; `read` takes it back.

    ``bound`` gives bound pods by cluster where that is known. ``slots`` adds the node classes, so that what is not
    bound yet keeps its place.
    """
    document: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "Placement",
        "workload": placement.workload,
        "verdict": placement.verdict.value,
        "replicas": placement.replicas,
        "placed": placement.placed,
        "unplaced": placement.unplaced,
        "assignments": [_dump_share(share, bound, slots=slots) for share in placement.shares],
        "reasons": [_dump_reason(reason) for reason in placement.reasons],
    }
    if placement.policy:
        document["policy"] = placement.policy
    if placement.group:
        document["group"] = placement.group
    if placement.queue_position is not None:
        document["queuePosition"] = placement.queue_position
    return document


def _dump_share(share: ClusterShare, bound: Mapping[str, int] | None, *, slots: bool) -> dict[str, Any]:
    document: dict[str, Any] = {"cluster": share.cluster, "replicas": share.replicas}
    if bound is not None and share.cluster in bound:
        document["bound"] = min(bound[share.cluster], share.replicas)
    document["components"] = dict(share.components)
    counts = {source.value: share.count(source) for source in Source}
    # Pods whose room was never counted (static weights) are taken to run on what is there.
    counts[Source.RUNNING.value] += share.replicas - sum(counts.values())
    document["sources"] = counts
    if slots and share.slots:
        document["slots"] = [_dump_slot(slot) for slot in share.slots]
    return document


def _dump_slot(slot: Slot) -> dict[str, Any]:
    document: dict[str, Any] = {
        "component": slot.component,
        "nodeClass": slot.node_class,
        "count": slot.count,
        "source": slot.source.value,
    }
    if slot.unit is not None:
        document["unit"] = slot.unit
    if slot.variant:
        document["variant"] = slot.variant
    return document


def _dump_reason(reason: Reason) -> dict[str, Any]:
    document = {"cluster": reason.cluster, "code": reason.code.value, "message": reason.message, "needs": reason.needs}
    return {name: value for name, value in document.items() if value or name in ("code", "message")}
