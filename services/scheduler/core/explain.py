"""Why, in numbers: reasons per cluster, and a verdict in one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from gpufleet.model import quantity
from gpufleet.model.placement import Placement
from gpufleet.model.reasons import Code, Reason, Verdict
from gpufleet.model.resources import Resources
from gpufleet.model.selectors import untolerated
from services.scheduler.core.member import Member
from services.scheduler.core.pool import Pool
from services.scheduler.core.shapes import is_gpu, selects
from services.scheduler.core.units import Part

EMPTY: Mapping[Code, int] = {}


def shortage(member: Member, wanted: Sequence[tuple[Part, int]], *, stock: bool) -> Reason:
    """Returns why a cluster has no room for some parts; ``stock``: nodes may be created."""
    member.settle()
    if member.debt:
        return Reason(
            Code.INSUFFICIENT_RESOURCES,
            f"{member.debt} pods that were placed here before do not fit any more; until they run or are taken back "
            "there is no room",
            member.name,
        )
    if any(part.virtual is not None for part, _ in wanted):
        return _shortage(member, wanted, stock)
    key = ("shortage", stock, *[(part.component, part.shape.id, part.classes, count) for part, count in wanted])
    known: Reason | None = member.notes.get(key)
    if known is None:
        known = _shortage(member, wanted, stock)
        member.note(key, known)
    return known


def _shortage(member: Member, wanted: Sequence[tuple[Part, int]], stock: bool) -> Reason:
    for part, count in wanted:
        reason = _virtual(member, part) if part.virtual is not None else _nodes(member, part, count, stock)
        if reason is not None:
            return reason
    pods = " and ".join(f"{count} {part.component}" for part, count in wanted)
    return Reason(Code.GANG_DOES_NOT_FIT, f"{pods} fit one by one, but not together", member.name)


def _virtual(member: Member, part: Part) -> Reason | None:
    need = part.virtual
    if need is None or member.virtual_room(part) > 0:
        return None
    nodes = list(member.virtual_nodes(part))
    if not nodes:
        where = f" of region {need.region}" if need.region else ""
        return Reason(Code.NO_MATCHING_NODES, f"no virtual node{where} matches", member.name)
    left = sum((node.left or {}).get(need.model, 0) for node in nodes)
    what = f"{need.model} GPUs" if need.model else "GPUs of an unnamed model"
    names = ", ".join(node.name for node in nodes)
    return Reason(Code.NO_UNIT_HAS_ROOM, f"needs {need.gpus} {what}, {names} has {left} left", member.name)


def _nodes(member: Member, part: Part, count: int, stock: bool) -> Reason | None:
    shape = part.shape
    pools = [pool for pool in member.pools if shape.admitted(pool.identity) and part.takes(pool.node_class)]
    if not pools:
        return Reason(Code.NO_MATCHING_NODES, _mismatch(member, part), member.name)
    if not any(shape.fitter(pool.layout).fit(pool.allocatable) for pool in pools):
        return Reason(Code.NEVER_FITS, _largest(part, [dict(p.node_class.allocatable) for p in pools]), member.name)
    running, in_stock = member.counts_of(part)
    room = running + (in_stock if stock else 0)
    if room >= count:
        return None
    free = [dict(zip(pool.layout.names, blocks, strict=True)) for pool in pools for blocks in pool.running]
    text = f"has room for {room} of {count} {part.component} pods" if room else _blocked(part, free)
    elastic = [pool.name for pool in pools if pool.node_class.elastic is not None]
    doubted = [pool for pool in pools if pool.doubt is not None and shape.fitter(pool.layout).fit(pool.allocatable)]
    if stock and doubted:
        nodes = "; ".join(f"{_further(pool)} of {pool.name} {pool.doubt.message}" for pool in doubted if pool.doubt)
        return Reason(Code.STOCK_NOT_TRUSTED, f"{text}; {nodes}", member.name)
    if stock and elastic and in_stock == 0:
        return Reason(Code.NO_STOCK, f"{text}; no stock left for {', '.join(elastic)}", member.name)
    return Reason(Code.INSUFFICIENT_RESOURCES, text, member.name)


def _further(pool: Pool) -> str:
    nodes = pool.node_class.elastic.nodes if pool.node_class.elastic is not None else 0
    return f"{nodes} more node{'' if nodes == 1 else 's'}"


def _mismatch(member: Member, part: Part) -> str:
    pod = part.shape.pod
    if not member.pools:
        return "has no nodes"
    if not any(part.takes(pool.node_class) for pool in member.pools):
        return f"no node class {'can' if part.classes == 'elastic' else 'cannot'} grow"
    for pool in member.pools:
        if part.takes(pool.node_class) and selects(pod, pool.identity.labels):
            taint = untolerated(pool.identity.taints, pod.tolerations)
            if taint is not None:
                return f"the pods do not tolerate the taint {taint.text} of {pool.name}"
    wanted = ", ".join(f"{key}={value}" for key, value in pod.node_selector)
    return f"no node has the labels {wanted}" if wanted else "no node satisfies the required node affinity"


@lru_cache(maxsize=1024)
def _by_scarcity(requests: Resources) -> tuple[tuple[str, int], ...]:
    # GPUs first: what is scarce is what explains.
    return tuple(sorted(requests, key=lambda item: (not is_gpu(item[0]), item[0] == "pods", item[0])))


def _needs(part: Part) -> tuple[tuple[str, int], ...]:
    return _by_scarcity(part.shape.pod.requests)


def amounts(resources: Resources) -> list[tuple[str, str]]:
    """Returns amounts as quantities."""
    return [(name, quantity.render(amount, name)) for name, amount in resources]


def _largest(part: Part, nodes: list[dict[str, int]]) -> str:
    for name, amount in _needs(part):
        largest = max((node.get(name, 0) for node in nodes), default=0)
        if largest < amount and not (name == "pods" and any(name not in node for node in nodes)):
            return (
                f"needs {quantity.render(amount, name)} {name} in one node, "
                f"the largest node has {quantity.render(largest, name)}"
            )
    return "no node is large enough in all resources at once"


def _blocked(part: Part, free: list[dict[str, int]]) -> str:
    for name, amount in _needs(part):
        largest = max((block.get(name, 0) for block in free), default=0)
        if largest < amount and not (name == "pods" and any(name not in block for block in free)):
            return (
                f"needs {quantity.render(amount, name)} {name} in one node, "
                f"largest free block {quantity.render(largest, name)}"
            )
    needs = ", ".join(f"{quantity.render(a, n)} {n}" for n, a in _needs(part) if n != "pods")
    return f"needs {needs} in one node; no node has all of it free at once"


def bounded(reasons: Iterable[Reason], clusters: int, unnamed: Mapping[Code, int] = EMPTY) -> tuple[Reason, ...]:
    """Returns the reasons with at most ``clusters`` clusters named; the others are counted by code.

    ``unnamed`` are clusters that were counted only, by code.
    """
    kept: list[Reason] = []
    named = 0
    counted = dict(unnamed)
    for reason in reasons:
        if not reason.cluster:
            kept.append(reason)
        elif named < clusters:
            named += 1
            kept.append(reason)
        else:
            counted[reason.code] = counted.get(reason.code, 0) + 1
    for code, count in sorted(counted.items()):
        kept.append(Reason(code, f"{count} more clusters"))
    return tuple(kept)


def sentence(placement: Placement) -> str:
    """Returns the verdict in one sentence."""
    where = ", ".join(f"{share.cluster} ({share.replicas})" for share in placement.shares)
    total, placed = placement.replicas, placement.placed
    first = next((f": {r.cluster + ': ' if r.cluster else ''}{r.message}" for r in placement.reasons), "")
    match placement.verdict:
        case Verdict.SCHEDULED:
            return f"All {total} pods are placed: {where}." if where else "There is nothing to place."
        case Verdict.PARTIALLY_SCHEDULED:
            return f"{placed} of {total} pods are placed: {where}; {placement.unplaced} wait{first}."
        case Verdict.UNSCHEDULABLE:
            return f"None of {total} pods is placed{first}."
        case Verdict.QUEUED:
            return f"{total} pods wait for their turn{first}."
        case Verdict.SUSPENDED:
            return f"Scheduling is suspended{first}."
        case Verdict.FINISHED:
            return f"It has finished on {where}." if where else "It has finished."
        case Verdict.FAILED:
            return f"It has failed on {where}{first}."
        case Verdict.GIVEN_UP:
            return f"It was given up{first}."
        case Verdict.DELETING:
            return f"It is being deleted{first}."
        case Verdict.ORPHANED:
            return f"Its submission is missing; what was placed stays: {where}."
