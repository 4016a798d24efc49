"""Where a workload's pods are in a cluster: on which nodes as far as the inventory tells, else of which classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from gpufleet.model.cluster import NodePods, WorkloadPods
from gpufleet.model.placement import ClusterShare, Slot, Source
from services.scheduler.core import ledger
from services.scheduler.core.gone import NOT_YET, SOMEWHERE, Kind
from services.scheduler.core.member import Member
from services.scheduler.core.reserve import part_of
from services.scheduler.core.shapes import Shape
from services.scheduler.core.units import Part

if TYPE_CHECKING:
    from services.scheduler.core.state import Entry, State


class Piece(NamedTuple):
    """Pods of one component on one node of a class, by its ``number``, or as `gone` says where that is not known.

    ``pool`` is empty where no node gains anything when they go: they wait for a node, or are on a virtual one.
    """

    component: str
    pool: str
    shape: Shape
    pods: int
    number: int = SOMEWHERE

    @property
    def kind(self) -> Kind:
        """What takes equally much room, however it is called."""
        return (self.pool, self.shape, self.pods, self.number)


class Here(NamedTuple):
    """Pods of one component and unit: how many are bound and finished, and where the bound ones are, as far as told.

    Who goes first is first.
    """

    bound: int = 0
    finished: int = 0
    nodes: Sequence[NodePods] = ()


def by_unit(pods: WorkloadPods) -> dict[tuple[str, str | None], Here]:
    """Returns what pods do, by component and unit; of unit None where the inventory does not tell them by unit."""
    found: dict[tuple[str, str | None], Here] = {}
    for name, here in pods.components:
        bound, finished = here.bound, here.finished
        for unit in here.units:
            nodes = [node for node in here.nodes if node.unit == unit.unit]
            found[name, unit.unit] = Here(unit.bound, unit.finished, nodes)
            bound, finished = bound - unit.bound, finished - unit.finished
        found[name, None] = Here(bound, finished, () if here.units else here.nodes)
    return found


def pieces(state: State, entry: Entry, member: Member, share: ClusterShare) -> tuple[Piece, ...]:
    """Returns where a share's pods are. When it loses some, those at the end go first."""
    ways, held = ledger.ways_of(state, entry), not entry.expired
    pods = entry.pods.get(share.cluster)
    if pods is None:
        parts = ((slot, part_of(slot, ways)) for slot in share.slots)
        return tuple([_waiting(member, slot, part, slot.count, held=held) for slot, part in parts if part is not None])
    known = by_unit(pods)
    groups: dict[tuple[str, str], list[tuple[Slot, Part]]] = {}
    for slot in share.slots:
        part = part_of(slot, ways)
        if part is not None:
            groups.setdefault((slot.component, slot.variant), []).append((slot, part))
    several = Counter(component for component, _ in groups)
    found: list[Piece] = []
    for (component, variant), slots in groups.items():
        key = (component, variant) if (component, variant) in known else (component, None)
        here = known.get(key, Here())
        if key[1] is None and several[component] > 1:  # of which unit they are is not told: those of the first ones
            count = sum(slot.count for slot, _ in slots)
            finished = min(here.finished, count)
            bound = min(here.bound, count - finished)
            known[key] = Here(here.bound - bound, here.finished - finished)
            here = Here(bound, finished)
        found += _of_unit(member, slots, here, held=held)
    return tuple(found)


def _of_unit(member: Member, slots: Sequence[tuple[Slot, Part]], here: Here, *, held: bool) -> list[Piece]:
    """Returns where pods of one component and unit are. ``held``: there is a reservation for those not bound yet."""
    live = max(0, sum(slot.count for slot, _ in slots) - here.finished)
    bound = min(here.bound, live)
    told = _without_first(here.nodes, here.bound - bound)
    found: list[Piece] = []
    left = max(0, bound - sum(node.pods for node in told))
    for slot, part in slots:
        count = min(slot.count, left)
        if count:
            left -= count
            found.append(Piece(slot.component, _pool(member, slot, part), part.shape, count))
    for node in reversed(told):
        at = next((s for s in slots if s[0].node_class == node.node_class and s[1].virtual is None), None)
        slot, part = at or next((s for s in slots if s[1].virtual is None), slots[0])
        pool = "" if part.virtual is not None or member.pool(node.node_class) is None else node.node_class
        found.append(Piece(slot.component, pool, part.shape, node.pods, node.number))
    waiting: list[Piece] = []
    left = live - bound
    for slot, part in reversed(slots):  # the first slots are served first
        count = min(slot.count, left)
        if count:
            left -= count
            waiting.append(_waiting(member, slot, part, count, held=held))
    return [*found, *reversed(waiting)]


def _waiting(member: Member, slot: Slot, part: Part, count: int, *, held: bool) -> Piece:
    """Returns pods that are not bound yet."""
    pool = _pool(member, slot, part) if held and slot.source is Source.RUNNING else ""
    return Piece(slot.component, pool, part.shape, count, NOT_YET)


def _pool(member: Member, slot: Slot, part: Part) -> str:
    """Returns the node class that a slot is taken to be on, if it is on nodes."""
    if part.virtual is not None:
        return ""
    if member.pool(slot.node_class) is not None:
        return slot.node_class
    return next((pool.name for pool in member.pools if part.shape.admitted(pool.identity)), "")


def _without_first(nodes: Sequence[NodePods], pods: int) -> list[NodePods]:
    """Returns where pods are without so many of the first, which are going already."""
    found: list[NodePods] = []
    for node in nodes:
        going = min(pods, node.pods)
        pods -= going
        if node.pods > going:
            found.append(node if not going else NodePods(node.node_class, node.number, node.pods - going, node.unit))
    return found


def first(nodes: Sequence[NodePods], pods: int) -> list[NodePods]:
    """Returns where so many of the first pods are."""
    found: list[NodePods] = []
    for node in nodes:
        going = min(pods, node.pods)
        if not going:
            break
        pods -= going
        found.append(NodePods(node.node_class, node.number, going, node.unit))
    return found


def last(there: Sequence[Piece], pods: int) -> list[Piece]:
    """Returns the pods that go when so many of a share do."""
    found: list[Piece] = []
    for piece in reversed(there):
        count = min(piece.pods, pods)
        if not count:
            break
        found.append(piece if count == piece.pods else piece._replace(pods=count))
        pods -= count
    return found
