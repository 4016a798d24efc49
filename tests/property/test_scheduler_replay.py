"""A decision that is made again from its record is the same, whatever the fleet, the policy and the workload."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpufleet.model.cluster import ClusterSpec
from gpufleet.model.placement import ClusterCap, Eviction
from gpufleet.model.policy import ClusterAffinity, DivisionType, PriorityClass, SpreadConstraint, StaticWeight
from services.scheduler.core.events import (
    ClusterRegistered,
    Evicted,
    InventoryChanged,
    PolicyChanged,
    RescheduleRequested,
    Scaled,
    WorkloadDeleted,
)
from tests.support.decisions import same_again
from tests.support.quotas import quota, tree
from tests.support.scheduling import World, deployment, gpus_free, inventory, job, policy

# More than are recorded whole, and with names whose order is not that of their numbers.
NAMES = tuple(f"c{i}" for i in range(14))
# GPUs free by node of two classes, stock of the second, region.
Cluster = tuple[list[int], list[int], int | None, str]
# What happens; kind, replicas, GPUs and PriorityClass; whom it happens to.
Step = tuple[str, tuple[str, int, int, str], int]
FREE = st.lists(st.integers(0, 8), max_size=3)
CLUSTERS = st.lists(
    st.tuples(FREE, FREE, st.none() | st.integers(0, 2), st.sampled_from("xyz")), min_size=14, max_size=14
)
WORKLOADS = st.tuples(
    st.sampled_from(["Deployment", "Deployment", "StatefulSet", "PyTorchJob", "two parts"]),
    st.integers(0, 20),
    st.sampled_from([1, 1, 2, 8]),
    st.sampled_from(["", "low", "high"]),
)
STEPS = st.sampled_from(["submit", "submit", "submit", "submit", "scale", "evict", "again", "delete"])


# Who yields within a quota was sought in more clusters than those where somebody lost something.
_QUOTA_STEPS: list[Step] = [
    *[("submit", ("Deployment", 0, 1, ""), 0)] * 3,
    ("submit", ("Deployment", 10, 1, "low"), 0),
    ("submit", ("Deployment", 17, 1, "high"), 0),
    ("scale", ("Deployment", 0, 1, ""), 0),
    ("submit", ("Deployment", 4, 1, ""), 0),
    ("scale", ("Deployment", 1, 1, ""), 89),
]
_QUOTA_NODES: list[list[int]] = [[]] * 10 + [[2], [6], [7], [7, 8, 8]]


@given(
    CLUSTERS,
    st.sampled_from([DivisionType.DYNAMIC, DivisionType.DYNAMIC, *DivisionType]),
    st.sampled_from([(), (NAMES[:2], NAMES[2:9], NAMES[9:]), (NAMES[4:], NAMES[:4])]),
    st.sampled_from(
        [(), (), (SpreadConstraint("region", min_groups=1, max_groups=2),), (SpreadConstraint("cluster"),)]
    ),
    st.fixed_dictionaries({n: st.booleans() for n in ("ecs_provision", "existing_capacity_first", "gang")}),
    st.sampled_from([None, 12, 40]),
    st.lists(st.tuples(STEPS, WORKLOADS, st.integers(0, 99)), min_size=1, max_size=8),
)
@example(
    [([], two, None, "x") for two in _QUOTA_NODES],
    DivisionType.DYNAMIC,
    (),
    (),
    dict.fromkeys(("ecs_provision", "existing_capacity_first", "gang"), False),
    12,
    _QUOTA_STEPS,
)
@settings(deadline=None, max_examples=12)
def test_every_decision_is_the_same_when_it_is_made_again(
    clusters: list[Cluster],
    division: DivisionType,
    groups: tuple[tuple[str, ...], ...],
    spread: tuple[SpreadConstraint, ...],
    flags: dict[str, Any],
    limit: int | None,
    steps: list[Step],
) -> None:
    world = World()
    weights = tuple(StaticWeight(ClusterAffinity(cluster_names=NAMES[i::3]), i + 1) for i in range(2))
    rule = policy(*groups, division=division, static_weights=weights, **flags)
    rule = replace(rule, placement=replace(rule.placement, spread=spread))
    world.feed(PolicyChanged(rule), PolicyChanged(PriorityClass("low", -5)), PolicyChanged(PriorityClass("high", 5)))
    if limit is not None:
        world.feed(PolicyChanged(tree(quota("team", limit // 2, limit, "test"))))
    for name, (one, two, stock, region) in zip(NAMES, clusters, strict=True):
        classes = gpus_free(*one, name="one"), gpus_free(*two, name="two", stock=stock)
        spec = ClusterSpec(name, region=region)
        world.feed(ClusterRegistered(spec), InventoryChanged(inventory(name, *classes, at=world.now)))
    keys: list[str] = []
    for number, (step, (kind, replicas, gpu, rank), pick) in enumerate(steps):
        key = keys[pick % len(keys)] if keys else ""
        if step == "submit" or not key:
            name, uid = f"w{number}", f"uid-{number}"
            if kind in ("Deployment", "StatefulSet"):
                made = deployment(name, replicas, gpu=gpu, kind=kind, uid=uid, arrival=number)
            else:
                parts = {"Worker": (max(1, replicas % 6), gpu)} | ({"Master": (1, 1)} if kind == "two parts" else {})
                made = job(name, parts, uid=uid, arrival=number)
            keys.append(made.key)
            world.submit(replace(made, priority_class=rank))
        elif step == "scale":
            world.feed(Scaled(key, replicas))
        elif step == "evict":
            placement = world.placement(key)
            caps = tuple(ClusterCap(s.cluster, 0, world.now + 60, "Pending") for s in placement.shares[:1])
            world.feed(Evicted(Eviction(key, placement.version, caps, at=world.now)))
        elif step == "again":
            world.feed(RescheduleRequested(key))
        else:
            keys.remove(key)
            world.feed(WorkloadDeleted(key, number))
        same_again(world.last)
