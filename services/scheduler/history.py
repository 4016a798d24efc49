"""What a past decision was derived from, as documents that `gpufleet plan` takes: the value of `gpufleet.history`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gpufleet.model import log
from gpufleet.wire.documents import dump_cluster, dump_placement
from services.scheduler.core.outputs import HistoryEntry
from services.scheduler.core.settings import Settings


def history(entry: HistoryEntry, settings: Settings) -> log.HistoryEntry:
    """Returns the record of a decision. Policies are named by version and digest; their documents have a topic."""
    documents: list[Mapping[str, Any]] = []
    known = {inventory.cluster: inventory for inventory in entry.inventories}
    documents += [dump_cluster(spec, known.get(spec.name)) for spec in entry.clusters]
    if entry.submitted is not None:
        documents.append(entry.submitted.manifest)
    if entry.before is not None:
        documents.append(dump_placement(entry.before, slots=True))
    omitted = [
        f"{type(policy).__name__} {policy.namespace}/{policy.name}, version {policy.version}, digest {policy.digest}"
        for policy in (entry.policy, entry.units)
        if policy is not None
    ]
    return log.HistoryEntry(
        workload=entry.workload,
        version=entry.version,
        decided_at=entry.at,
        trigger=entry.mode,
        documents=tuple(documents),
        settings={name: value for name, value in asdict(settings).items() if value is not None},
        placement=entry.placement,
        omitted=tuple(omitted),
    )
