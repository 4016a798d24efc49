"""Spread constraints: which clusters are chosen, in tables, and what decisions make of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpufleet.model.cluster import ClusterSpec
from gpufleet.model.policy import DivisionType, PriorityClass, PropagationPolicy, SpreadConstraint
from gpufleet.model.reasons import Verdict
from services.scheduler.core.events import (
    ClusterRegistered,
    InventoryChanged,
    PolicyChanged,
    RescheduleRequested,
    Scaled,
)
from services.scheduler.core.spread import Candidate, choose
from services.scheduler.core.spread_groups import Group, select_groups
from tests.support.scheduling import World, deployment, gpus_free, inventory, job, policy

LLM = "test/Deployment/llm"
TRAIN = "test/PyTorchJob/train"


# -- groups --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("groups", "least", "most", "target", "expected"),
    [
        # name: (clusters, score)
        ({}, 2, 3, 1, None),
        ({"a": (1, 80)}, 2, 3, 1, None),
        ({"a": (1, 80), "b": (2, 30)}, 2, 3, 4, None),
        ({"a": (1, 80)}, 1, 3, 1, ["a"]),
        # Only these three reach ten clusters.
        (
            {"a": (1, 80), "c": (1, 80), "b": (1, 60), "e": (2, 60), "d": (5, 50), "f": (3, 50)},
            1,
            3,
            10,
            ["e", "d", "f"],
        ),
        # Fewer groups do, if the best of a larger set are enough by themselves.
        ({"a": (1, 80), "b": (4, 40), "c": (1, 30), "d": (3, 30), "e": (3, 20), "f": (5, 10)}, 2, 6, 5, ["a", "b"]),
        (
            {"a": (1, 60), "b": (1, 50), "c": (1, 40), "d": (3, 30), "e": (3, 20), "f": (3, 10)},
            1,
            3,
            6,
            ["a", "d", "e"],
        ),
        ({"a": (1, 60), "b": (2, 50), "c": (3, 40), "d": (4, 30)}, 1, 2, 5, ["a", "d"]),
        # Equal scores: more clusters.
        ({"d": (1, 60), "c": (3, 50), "a": (3, 40), "b": (4, 30)}, 1, 2, 5, ["c", "a"]),
        # Everything equal: by name.
        ({"c": (1, 5), "b": (1, 5), "a": (1, 5)}, 2, 2, 1, ["a", "b"]),
        # No upper bound.
        ({"a": (1, 5), "b": (1, 4), "c": (1, 3)}, 1, 0, 3, ["a", "b", "c"]),
    ],
)
def test_groups(
    groups: dict[str, tuple[int, int]], least: int, most: int, target: int, expected: list[str] | None
) -> None:
    found = select_groups([Group(name, *rest) for name, rest in groups.items()], least, most, target)
    assert (None if found is None else [group.name for group in found]) == expected


def test_very_many_groups_are_not_tried_in_every_combination() -> None:
    groups = [Group(f"g{i:03}", 1 + i % 3, i % 7) for i in range(200)]
    found = select_groups(groups, 60, 80, 130)
    assert found is not None
    assert 60 <= len(found) <= 80
    assert sum(group.value for group in found) >= 130
    assert select_groups(groups, 60, 80, 1000) is None


# -- clusters ------------------------------------------------------------------------------------------------------


def by(field: str, least: int = 1, most: int = 0) -> SpreadConstraint:
    return SpreadConstraint(field, "", least, most)


def label(name: str, least: int = 1, most: int = 0) -> SpreadConstraint:
    return SpreadConstraint("", name, least, most)


# name: (score, available)
FOUR = {"m4": (60, 50), "m2": (40, 60), "m3": (30, 80), "m1": (20, 40)}
SPECS = {
    "m1": ClusterSpec("m1", provider="p1", region="r1", zones=("z1",), labels=(("site", "a"),)),
    "m2": ClusterSpec("m2", provider="p1", region="r1", zones=("z2",), labels=(("site", "b"),)),
    "m3": ClusterSpec("m3", provider="p2", region="r1", zones=("z1", "z2"), labels=(("site", "a"),)),
    "m4": ClusterSpec("m4", provider="p2", region="r2", zones=("z2",), labels=(("site", "a"),)),
}


def chosen(clusters: dict[str, tuple[int, int]], *constraints: SpreadConstraint, need: int, **rest: Any) -> Any:
    candidates = [Candidate(name, 0, score, free) for name, (score, free) in clusters.items()]
    choice = choose(candidates, constraints, SPECS, need, **rest)
    return choice.unmet or list(choice.clusters)


@pytest.mark.parametrize(
    ("constraint", "need", "duplicated", "expected"),
    [
        (by("cluster", 1, 2), 100, False, ["m4", "m2"]),
        (by("cluster", 1, 2), 120, True, ["m4", "m2"]),
        # The second of the best two goes for the roomiest of the others.
        (by("cluster", 1, 2), 120, False, ["m4", "m3"]),
        # Not enough with any two: the roomiest two.
        (by("cluster", 1, 2), 200, False, ["m2", "m3"]),
        (by("cluster", 1, 0), 1, False, ["m4", "m2", "m3", "m1"]),
        (by("cluster", 7, 7), 30, False, "the policy spreads over at least 7 clusters, and 4 may take it"),
    ],
)
def test_by_cluster(constraint: SpreadConstraint, need: int, duplicated: bool, expected: Any) -> None:
    assert chosen(FOUR, constraint, need=need, duplicated=duplicated) == expected


@pytest.mark.parametrize(
    ("constraints", "need", "expected"),
    [
        # The best of each region, then the best of the others.
        ([by("region", 2, 2), by("cluster", 1, 3)], 100, ["m4", "m2", "m3"]),
        ([by("region", 2, 2), by("cluster", 2, 2)], 100, ["m4", "m2"]),
        # One region: r1 takes 100 of 100, r2 only 50.
        ([by("region", 1, 1), by("cluster", 1, 2)], 100, ["m2", "m3"]),
        # r2 has a cluster only, and two are wanted.
        ([by("region", 1, 1), by("cluster", 2, 2)], 10, ["m2", "m3"]),
        ([by("region", 3, 3)], 10, "the policy spreads over at least 3 regions, and 2 (r1, r2) may take it"),
        (
            [by("region", 1, 1), by("cluster", 4, 4)],
            10,
            "the policy spreads over at least 4 clusters of 1 region, and no choice has so many",
        ),
        ([by("provider", 2, 2), by("cluster", 1, 2)], 10, ["m4", "m2"]),
        ([by("provider", 1, 1), by("cluster", 1, 1)], 60, ["m4"]),
        ([by("zone", 2, 2), by("cluster", 1, 2)], 10, ["m4", "m3"]),
        ([label("site", 2, 2), by("cluster", 1, 2)], 10, ["m4", "m2"]),
        ([label("site", 1, 1)], 10, ["m4", "m3", "m1"]),
        # Two constraints hold together: of r1 alone, one of each provider.
        ([by("region", 1, 1), by("provider", 2, 2), by("cluster", 2, 2)], 100, ["m3", "m2"]),
    ],
)
def test_by_topology(constraints: list[SpreadConstraint], need: int, expected: Any) -> None:
    assert chosen(FOUR, *constraints, need=need) == expected


@pytest.mark.parametrize(
    ("one", "other", "constraint", "need", "duplicated", "best"),
    [
        # More clusters that take a whole copy, before better scores.
        ([(0, 60)] * 3, [(100, 60), (100, 60), (100, 10)], by("region"), 50, True, "a"),
        ([(0, 100), (0, 100), (0, 10)], [(100, 60), (100, 70), (100, 5)], by("region"), 50, True, "b"),
        # The region that can take its part, before better scores; then better scores.
        ([(0, 40), (0, 30)], [(100, 10), (100, 10)], by("region"), 50, False, "a"),
        ([(0, 100), (0, 100)], [(100, 40), (100, 40)], by("region"), 50, False, "b"),
    ],
)
def test_scores_of_regions(
    one: list[tuple[int, int]],
    other: list[tuple[int, int]],
    constraint: SpreadConstraint,
    need: int,
    duplicated: bool,
    best: str,
) -> None:
    candidates, specs = [], {}
    for region, members in (("a", one), ("b", other)):
        for index, (score, free) in enumerate(members):
            name = f"{region}{index}"
            candidates.append(Candidate(name, 0, score, free))
            specs[name] = ClusterSpec(name, region=region)
    found = choose(candidates, [replace(constraint, max_groups=1)], specs, need, duplicated=duplicated)
    assert {name[0] for name in found.clusters} == {best}


# -- decisions -----------------------------------------------------------------------------------------------------


def spread(
    *constraints: SpreadConstraint, groups: Any = (), division: DivisionType = DivisionType.DYNAMIC, **rest: Any
) -> PropagationPolicy:
    made = policy(*groups, division=division, **rest)
    return replace(made, placement=replace(made.placement, spread=constraints))


def fleet(**free: tuple[str, int]) -> World:
    """Clusters with a region and so many nodes of one free GPU."""
    world = World()
    for name, (region, count) in free.items():
        world.feed(
            ClusterRegistered(ClusterSpec(name, region=region)),
            InventoryChanged(inventory(name, gpus_free(*([1] * count or [0])), at=world.now)),
        )
    return world


def grow(world: World, name: str, count: int) -> None:
    world.feed(InventoryChanged(inventory(name, gpus_free(*[1] * count), at=world.now, n=1)))


def test_no_more_clusters_than_allowed() -> None:
    world = fleet(a=("r", 4), b=("r", 6), c=("r", 5))
    world.submit(deployment(replicas=8), spread(by("cluster", 1, 2)))
    assert world.assigned(LLM) == {"b": 4, "c": 4}
    assert world.codes(LLM) == {"a": "SpreadChoseOthers"}
    assert world.message(LLM, "a") == "the policy spreads over 1 to 2 clusters, and others come first"


def test_too_few_regions_place_nothing_and_say_what_would_help() -> None:
    world = fleet(a=("r1", 4), b=("r1", 6))
    world.submit(deployment(replicas=2), spread(by("region", 2)))
    placement = world.placement(LLM)
    assert (placement.verdict, placement.shares) == (Verdict.UNSCHEDULABLE, ())
    [reason] = placement.reasons
    assert (reason.code.value, reason.needs) == ("SpreadUnmet", "1 more region, or minGroups: 1")
    world.feed(
        ClusterRegistered(ClusterSpec("c", region="r2")),
        InventoryChanged(inventory("c", gpus_free(1), at=world.now)),
    )
    assert world.placement(LLM).verdict is Verdict.SCHEDULED


def test_a_cluster_without_the_property_is_no_candidate() -> None:
    world = fleet(a=("r1", 4), b=("", 6))
    world.submit(deployment(replicas=2), spread(by("region")))
    assert world.assigned(LLM) == {"a": 2}
    world.submit(deployment("other", replicas=9), spread(by("region"), name="pp"))
    assert world.message("test/Deployment/other", "b") == "the policy spreads over it, but the cluster has no region"


def test_scaling_prefers_the_clusters_that_have_it() -> None:
    world = fleet(a=("r", 2), b=("r", 6))
    world.submit(deployment(replicas=2), spread(by("cluster", 1, 1)))
    assert world.assigned(LLM) == {"b": 2}
    grow(world, "a", 9)
    world.feed(Scaled(LLM, 4))
    assert world.assigned(LLM) == {"b": 4}
    # Only if they do not fit there, they are all exchanged for the roomier one, as upstream does.
    world.feed(Scaled(LLM, 8))
    assert world.assigned(LLM) == {"a": 8}


def test_what_waits_takes_nothing_away_from_where_it_is() -> None:
    world = fleet(a=("r", 2), b=("r", 3))
    world.submit(deployment(replicas=5), spread(by("cluster", 1, 1)))
    assert (world.assigned(LLM), world.placement(LLM).verdict) == ({"b": 3}, Verdict.PARTIALLY_SCHEDULED)
    grow(world, "a", 9)
    assert world.assigned(LLM) == {"b": 3}
    world.feed(RescheduleRequested(LLM))
    assert world.assigned(LLM) == {"a": 5}


def test_copies_go_to_as_many_as_allowed_and_stay_there() -> None:
    world = fleet(a=("r", 1), b=("r", 9), c=("r", 5))
    world.submit(deployment(replicas=2), spread(by("cluster", 1, 2), division=DivisionType.DUPLICATED))
    assert world.assigned(LLM) == {"b": 2, "c": 2}
    grow(world, "a", 20)
    assert world.assigned(LLM) == {"b": 2, "c": 2}


def test_static_weights_ignore_constraints() -> None:
    world = fleet(a=("r", 1), b=("r", 9))
    world.submit(deployment(replicas=4), spread(by("cluster", 1, 1), division=DivisionType.STATIC))
    assert world.assigned(LLM) == {"a": 2, "b": 2}


def test_aggregated_within_the_regions_that_are_chosen() -> None:
    world = fleet(a=("r1", 8), b=("r1", 2), c=("r2", 6))
    world.submit(
        deployment(replicas=9), spread(by("region", 2, 2), by("cluster", 2, 2), division=DivisionType.AGGREGATED)
    )
    assert sum(world.assigned(LLM).values()) == 9
    assert set(world.assigned(LLM)) == {"a", "c"}


def test_a_statefulset_that_does_not_fit_the_clusters_allowed_waits() -> None:
    world = fleet(a=("r", 2), b=("r", 3))
    world.submit(deployment(replicas=5, kind="StatefulSet"), spread(by("cluster", 1, 1)))
    assert world.placement("test/StatefulSet/llm").verdict is Verdict.UNSCHEDULABLE
    assert world.codes("test/StatefulSet/llm") == {"a": "SpreadChoseOthers", "b": "InsufficientResources"}


def test_higher_groups_are_chosen_first() -> None:
    world = fleet(a=("r", 3), b=("r", 9), c=("r", 4))
    world.submit(deployment(replicas=5), spread(by("cluster", 1, 2), groups=(["a"], ["b", "c"])))
    assert world.assigned(LLM) == {"a": 3, "b": 2}


def test_the_first_group_in_which_constraints_can_be_met() -> None:
    world = fleet(a=("r1", 9), b=("r1", 9), c=("r2", 9))
    made = spread(by("region", 2), groups=(["a"], ["b", "c"]), division=DivisionType.DUPLICATED)
    world.submit(deployment(replicas=2), made)
    assert world.assigned(LLM) == {"b": 2, "c": 2}
    world = fleet(a=("r1", 9), b=("r1", 9))
    world.submit(deployment(replicas=2), replace(made, digest="x"))
    assert (world.assigned(LLM), world.placement(LLM).verdict) == ({}, Verdict.UNSCHEDULABLE)


@pytest.mark.parametrize(
    ("replicas", "expected"), [(3, {"b": 3}), (6, {"a": 2, "b": 4}), (9, {"a": 2, "b": 4, "c": 3})]
)
def test_aggregated_replicas_overflow(replicas: int, expected: dict[str, int]) -> None:
    world = fleet(a=("r", 2), b=("r", 4), c=("r", 9))
    made = policy(["a", "b"], ["c"], division=DivisionType.AGGREGATED)
    made = replace(made, placement=replace(made.placement, overflow=True))
    world.submit(deployment(replicas=replicas), made)
    assert world.assigned(LLM) == expected
    world.feed(Scaled(LLM, 2))
    assert sum(world.assigned(LLM).values()) == 2
    assert "c" not in world.assigned(LLM), "the last group shrinks first"


# -- what goes to one cluster as a whole ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("constraint", "zones", "told"),
    [
        (by("region", 2), ("z1",), "2 regions"),
        (by("cluster", 2, 3), ("z1",), "2 clusters"),
        (by("provider", 2), ("z1",), "2 providers"),
        (label("site", 3), ("z1",), "3 values of label site"),
        (by("zone", 2), ("z1",), "2 zones"),
        (by("zone", 2), ("z1", "z2"), ""),  # a cluster of several zones is in all of them
    ],
)
def test_one_cluster_cannot_be_several_groups(constraint: SpreadConstraint, zones: tuple[str, ...], told: str) -> None:
    world = World()
    for name in ("a", "b"):
        spec = ClusterSpec(name, provider=name, region=name, zones=zones, labels=(("site", name),))
        world.feed(ClusterRegistered(spec), InventoryChanged(inventory(name, gpus_free(8, 8), at=world.now)))
    world.submit(job(components={"Worker": (2, 8)}), spread(constraint))
    placement = world.placement(TRAIN)
    if not told:
        assert placement.verdict is Verdict.SCHEDULED
        return
    assert (placement.verdict, placement.shares) == (Verdict.UNSCHEDULABLE, ())
    [reason] = placement.reasons
    assert (reason.code.value, reason.needs) == ("SpreadUnmet", "minGroups: 1")
    assert reason.message == f"the policy spreads over at least {told}, but it goes to one cluster as a whole"


@pytest.mark.parametrize(
    ("regions", "expected"),
    [
        # The region in which it fits, though another has more room in all.
        ({"a": ("r1", 4), "b": ("r1", 4), "c": ("r2", 6)}, "c"),
        # Both will do: the one with more clusters, then the first by name.
        ({"a": ("r1", 6), "b": ("r2", 6), "c": ("r2", 6)}, "b"),
        ({"b": ("r1", 6), "a": ("r2", 6)}, "b"),
        # Nowhere.
        ({"a": ("r1", 4), "b": ("r2", 5)}, None),
    ],
)
@pytest.mark.parametrize("constraints", [(by("region", 1, 1),), (by("region", 1, 1), by("cluster", 1, 1))])
def test_the_group_of_what_goes_to_one_cluster(
    regions: dict[str, tuple[str, int]], expected: str | None, constraints: tuple[SpreadConstraint, ...]
) -> None:
    world = fleet(**regions)
    world.submit(job(components={"Worker": (6, 1)}), spread(*constraints))
    assert set(world.assigned(TRAIN)) == ({expected} if expected else set())
    if expected is None:
        assert set(world.codes(TRAIN).values()) <= {"GangDoesNotFit", "InsufficientResources", "NeverFits"}
        grow(world, "b", 6)
        assert set(world.assigned(TRAIN)) == {"b"}


def test_the_groups_of_a_higher_tier_go_first() -> None:
    world = fleet(a=("r1", 2), b=("r1", 6), c=("r2", 6), d=("r2", 6))
    world.submit(job(components={"Worker": (6, 1)}), spread(by("region", 1, 1), groups=(["a", "b"], ["c", "d"])))
    assert set(world.assigned(TRAIN)) == {"b"}
    # Running nodes go before stock when the group is chosen, too.
    world = World()
    world.clusters(a=gpus_free(1, stock=9), b=gpus_free(8))
    for name, region in (("a", "r1"), ("b", "r2")):
        world.feed(ClusterRegistered(ClusterSpec(name, region=region)))
    world.submit(job(components={"Worker": (1, 8)}), spread(by("region", 1, 1), ecs_provision=True))
    assert set(world.assigned(TRAIN)) == {"b"}


def test_what_runs_in_one_cluster_stays_there() -> None:
    world = fleet(a=("r1", 3))
    world.submit(deployment(replicas=2), spread(by("region", 1, 1), gang=True))
    world.feed(
        ClusterRegistered(ClusterSpec("b", region="r2")),
        InventoryChanged(inventory("b", gpus_free(*[1] * 9), at=world.now)),
        Scaled(LLM, 3),
    )
    assert world.assigned(LLM) == {"a": 3}
    world.feed(PolicyChanged(replace(spread(by("region", 2), gang=True), version=2, digest="2")))
    assert (world.assigned(LLM), world.codes(LLM)) == ({"a": 3}, {"": "SpreadUnmet"})
    world.feed(Scaled(LLM, 2))
    assert world.assigned(LLM) == {"a": 2}


def test_nobody_yields_to_what_constraints_keep_out() -> None:
    world = fleet(a=("r1", 4), b=("r1", 6))
    world.feed(PolicyChanged(PriorityClass("high", 100)), PolicyChanged(policy()))
    world.submit(deployment("low", replicas=10))
    ranked = deployment(replicas=8, priority_class="high")
    world.submit(ranked, spread(by("region", 2), name="aa"))
    assert world.placement(LLM).verdict is Verdict.UNSCHEDULABLE
    assert world.assigned("test/Deployment/low") == {"a": 4, "b": 6}


def test_a_preemptor_keeps_to_the_clusters_that_its_constraints_chose() -> None:
    world = fleet(a=("r", 9), b=("r", 2))
    world.feed(PolicyChanged(PriorityClass("high", 100)))
    world.submit(deployment("low", replicas=9), policy(["a"]))
    world.submit(deployment(replicas=5, priority_class="high"), spread(by("cluster", 1, 1), name="aa"))
    assert world.assigned(LLM) == {"b": 2}
    assert world.codes(LLM)["a"] == "SpreadChoseOthers"


def test_what_has_no_pods_keeps_to_constraints_too() -> None:
    world = fleet(a=("r1", 1), b=("r2", 1), c=("r2", 1))
    config = replace(deployment("settings"), key="test/ConfigMap/settings", kind="ConfigMap", components=())
    rule = spread(by("cluster", 1, 2), kinds=[("apps/v1", "ConfigMap")], division=DivisionType.DUPLICATED)
    world.submit(config, rule)
    assert set(world.assigned(config.key)) == {"a", "b"}
    world.feed(PolicyChanged(replace(rule, placement=replace(rule.placement, spread=(by("region", 3),)), digest="2")))
    assert (set(world.assigned(config.key)), world.codes(config.key)) == ({"a", "b"}, {"": "SpreadUnmet"})
