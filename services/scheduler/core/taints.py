"""Cluster taints over time: when one was first seen, and until when it is tolerated (specification 1.2)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from gpufleet.model.cluster import ClusterSpec
from gpufleet.model.selectors import Taint, Toleration

_DRIVES_OUT = "NoExecute"


def since_seen(spec: ClusterSpec, before: ClusterSpec | None, at: float) -> ClusterSpec:
    """Returns a registration whose NoExecute taints say since when; one without `timeAdded` counts from ``at``.

    That is when the registration was written (epoch seconds). A taint that was there before keeps its time. After a
    restart only the last registration is known, so one that was edited since counts later: never too early.
    """
    if not any(taint.effect == _DRIVES_OUT and taint.since is None for taint in spec.taints):
        return spec
    known = {
        (t.key, t.value): t.since for t in (before.taints if before is not None else ()) if t.effect == _DRIVES_OUT
    }
    return replace(spec, taints=tuple(_dated(taint, known.get((taint.key, taint.value)), at) for taint in spec.taints))


def _dated(taint: Taint, known: float | None, at: float) -> Taint:
    if taint.effect != _DRIVES_OUT or taint.since is not None:
        return taint
    return replace(taint, since=at if known is None else known)


def tolerated_until(taints: Iterable[Taint], tolerations: Iterable[Toleration]) -> float:
    """Returns when what runs on a cluster is driven out (epoch seconds): -inf at once, inf never.

    Of several tolerations of a taint the shortest one counts, as upstream.
    """
    until = math.inf
    tolerations = tuple(tolerations)
    for taint in taints:
        if taint.effect != _DRIVES_OUT:
            continue
        matching = [t for t in tolerations if t.tolerates(taint)]
        if not matching:
            return -math.inf
        seconds = [t.seconds for t in matching if t.seconds is not None]
        if seconds:
            until = min(until, (taint.since or 0.0) + max(0, min(seconds)))
    return until
