"""Spread constraints: which of the candidate clusters may be used together (specification 1.2, after Karmada).

Clusters that have the workload already score 100, the others 0. They are ordered by priority group, score, available
replicas and name. By cluster: the first ones, the last of them exchanged for roomier ones until the replicas fit. By
region (and, in the same way, provider, zone or label): the best groups, then the best cluster of each, then the rest.
Static weights ignore constraints, and copies ignore available replicas when clusters are chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gpufleet.model.cluster import ClusterSpec
from gpufleet.model.policy import DivisionType, SpreadConstraint
from gpufleet.model.reasons import Code, Reason
from services.scheduler.core.divide import Mode, Option
from services.scheduler.core.draft import Draft
from services.scheduler.core.spread_groups import Group, select_groups
from services.scheduler.core.topology import groups_of, property_of

_HELD = 100
# What a whole group's score counts in, so that its clusters' own scores only break ties.
_UNIT = 1000
_ORDER = ("provider", "region", "zone")
_CLUSTER = SpreadConstraint("cluster")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A cluster that may be chosen. ``held``: it keeps what it has, so it is chosen in any case."""

    cluster: str
    tier: int
    score: int
    available: int
    held: bool = False

    @property
    def order(self) -> tuple[int, int, int, int, str]:
        """The best comes first."""
        return (not self.held, self.tier, -self.score, -self.available, self.cluster)


@dataclass(frozen=True, slots=True)
class Choice:
    """Chosen clusters; ``unmet`` says, if nothing could be chosen, why, and ``needs`` what would help."""

    clusters: tuple[str, ...] = ()
    unmet: str = ""
    needs: str = ""


@dataclass(slots=True)
class _Request:
    replicas: int
    duplicated: bool
    cluster: SpreadConstraint
    topologies: list[SpreadConstraint] = field(default_factory=list)


def choose(
    candidates: Iterable[Candidate],
    constraints: Sequence[SpreadConstraint],
    specs: Mapping[str, ClusterSpec | None],
    replicas: int,
    *,
    duplicated: bool = False,
) -> Choice:
    """Returns the clusters that may be used together for so many replicas (of each copy, if duplicated)."""
    ordered = sorted(candidates, key=lambda c: c.order)
    request = _Request(replicas, duplicated, next((c for c in constraints if c.field == "cluster"), _CLUSTER))
    request.topologies = sorted(
        (c for c in constraints if c.field != "cluster"),
        key=lambda c: (_ORDER.index(c.field) if c.field in _ORDER else len(_ORDER), c.label),
    )
    if len(ordered) < request.cluster.min_groups:
        return _unmet(request.cluster, len(ordered))
    if request.topologies:
        return _by_topology(ordered, request, lambda c, constraint: groups_of(constraint, specs.get(c.cluster)))
    return Choice(_by_cluster(ordered, request))


def _unmet(constraint: SpreadConstraint, found: int, names: Iterable[str] = (), *, together: str = "") -> Choice:
    least = constraint.min_groups
    listed = ", ".join(names)
    has = f"{found} ({listed})" if listed else str(found)
    return Choice(
        unmet=f"the policy spreads over at least {counted(constraint, least)}, and {has} may take it{together}",
        needs=f"{counted(constraint, least - found, 'more ')}" + (f", or minGroups: {found}" if found else ""),
    )


def _by_cluster(ordered: list[Candidate], request: _Request) -> tuple[str, ...]:
    count = min(request.cluster.max_groups or len(ordered), len(ordered))
    chosen, rest = ordered[:count], ordered[count:]
    chosen += [c for c in rest if c.held]
    rest = [c for c in rest if not c.held]
    if not request.duplicated:
        _make_room(chosen, rest, request.replicas)
    return tuple(c.cluster for c in chosen)


def _make_room(chosen: list[Candidate], rest: list[Candidate], replicas: int) -> None:
    """Exchanges the last of the chosen for the roomiest of the rest, one after another, until the replicas fit."""
    total = sum(c.available for c in chosen)
    for last in range(len(chosen) - 1, -1, -1):
        if total >= replicas:
            return
        if chosen[last].held or not rest:
            continue
        index = max(range(len(rest)), key=lambda i: (rest[i].available, -i))
        if rest[index].available > chosen[last].available:
            total += rest[index].available - chosen[last].available
            chosen[last], rest[index] = rest[index], chosen[last]


Groups = Callable[[Candidate, SpreadConstraint], tuple[str, ...]]


def _by_topology(ordered: list[Candidate], request: _Request, groups: Groups) -> Choice:
    picked: list[tuple[SpreadConstraint, list[str]]] = []
    for constraint in request.topologies:
        members: dict[str, list[Candidate]] = {}
        for candidate in ordered:
            for name in groups(candidate, constraint):
                members.setdefault(name, []).append(candidate)
        if len(members) < constraint.min_groups:
            return _unmet(constraint, len(members), sorted(members))
        known = {
            name: Group(name, len(found), group_score(found, constraint, request)) for name, found in members.items()
        }
        held = tuple(known[name] for name, found in sorted(members.items()) if any(c.held for c in found))
        chosen = select_groups(
            list(known.values()), constraint.min_groups, constraint.max_groups, request.cluster.min_groups, held
        )
        if chosen is None:
            wanted = counted(request.cluster, request.cluster.min_groups)
            return Choice(
                unmet=f"the policy spreads over at least {wanted} of {_bounds(constraint)}, and no choice has so many",
                needs=f"more clusters in a {property_of(constraint)}, or a smaller minGroups for clusters",
            )
        names = [group.name for group in chosen]
        picked.append((constraint, names))
        ordered = [c for c in ordered if any(name in names for name in groups(c, constraint))]
    return _cover(ordered, picked, request, groups)


def _cover(
    ordered: list[Candidate],
    picked: list[tuple[SpreadConstraint, list[str]]],
    request: _Request,
    groups: Groups,
) -> Choice:
    """Returns the best cluster of every chosen group, then the best of the others up to the bound on clusters."""
    chosen = [c for c in ordered if c.held]
    for constraint, names in picked:
        covered = 0
        for name in names:
            found = [c for c in ordered if name in groups(c, constraint)]
            covered += bool(found)
            if found and not any(c in chosen for c in found):
                chosen.append(found[0])
        if covered < constraint.min_groups:
            return _unmet(constraint, covered, together=" under its other constraints")
    rest = [c for c in ordered if c not in chosen]
    most = request.cluster.max_groups or len(ordered)
    chosen += rest[: max(0, most - len(chosen))]
    return Choice(tuple(c.cluster for c in chosen))


def group_score(members: Sequence[Candidate], constraint: SpreadConstraint, request: _Request) -> int:
    """Returns a group's weight: how much of what it should take it can take, then how well its clusters score."""
    if request.duplicated:
        valid = [c for c in members if c.available >= request.replicas]
        return len(valid) * _UNIT + (sum(c.score for c in valid) // len(valid) if valid else 0)
    least = max(1, constraint.min_groups)
    target = -(-request.replicas // least)
    clusters = max(least, request.cluster.min_groups)
    available = score = count = 0
    for candidate in members:
        available += candidate.available
        score += candidate.score
        count += 1
        if count >= clusters and available >= target:
            break
    if available < target:
        return available * _UNIT + score // len(members)
    return target * _UNIT + score // count


def counted(constraint: SpreadConstraint, count: int, more: str = "") -> str:
    """Returns so many of what a constraint groups clusters by, in words."""
    one = count == 1
    if constraint.label:
        return f"{count} {more}value{'' if one else 's'} of label {constraint.label}"
    return f"{count} {more}{constraint.field}{'' if one else 's'}"


def narrow(draft: Draft, options: list[Option]) -> tuple[list[Option] | None, list[Reason]]:
    """Returns the options that may be used together, or None if there are none such, and why the others are not."""
    placement = draft.policy.placement
    if not placement.spread or placement.division is DivisionType.STATIC:
        return options, []
    stays = draft.mode is Mode.FILL
    candidates = [
        Candidate(
            o.cluster,
            o.tier,
            score(draft, o.cluster),
            o.assigned + o.running + o.stock,
            held=stays and o.cluster in draft.before,
        )
        for o in options
    ]
    members = draft.state.fleet.members
    choice = choose(
        candidates,
        placement.spread,
        {o.cluster: members[o.cluster].spec for o in options},
        draft.workload.replicas,
        duplicated=placement.division is DivisionType.DUPLICATED,
    )
    if choice.unmet:
        return None, [Reason(Code.SPREAD_UNMET, choice.unmet, needs=choice.needs)]
    chosen = set(choice.clusters)
    others = left_out(placement.spread, [o.cluster for o in options if o.cluster not in chosen])
    return [o for o in options if o.cluster in chosen], others


def score(draft: Draft, cluster: str) -> int:
    """Returns how well a cluster does, whatever its room: those that have the workload go first."""
    return _HELD if cluster in draft.before else 0


def left_out(constraints: Iterable[SpreadConstraint], clusters: Iterable[str]) -> list[Reason]:
    """Returns why clusters that may take a workload are not among the chosen ones."""
    told = ", ".join(_bounds(c) for c in constraints if c.max_groups or c.min_groups > 1) or "clusters"
    message = f"the policy spreads over {told}, and others come first"
    return [Reason(Code.SPREAD_CHOSE_OTHERS, message, cluster) for cluster in clusters]


def _bounds(constraint: SpreadConstraint) -> str:
    least, most = constraint.min_groups, constraint.max_groups
    if not most:
        return f"at least {counted(constraint, least)}"
    return counted(constraint, least) if least == most else f"{least} to {counted(constraint, most)}"
