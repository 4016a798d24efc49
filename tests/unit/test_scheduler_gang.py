"""Gangs (specification 12): one cluster, all or nothing, minMember below the total, tiers, stock, fragmentation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpufleet.model.cluster import ComponentPods, WorkloadPods
from gpufleet.model.placement import Source
from gpufleet.model.policy import DivisionType
from gpufleet.model.reasons import Verdict
from services.rescheduler import core as rescheduler
from services.rescheduler.core import events as rev
from services.scheduler.core.gang import least
from tests.support.scheduling import World, deployment, gpus_free, job, node_class, policy

TRAIN = "test/PyTorchJob/train"
LLM = "test/Deployment/llm"


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        (None, {"Master": 1, "Worker": 4}),
        (3, {"Master": 1, "Worker": 2}),
        (1, {"Master": 1, "Worker": 0}),
        (9, {"Master": 1, "Worker": 4}),
    ],
)
def test_which_pods_must_start_together(member: int | None, expected: dict[str, int]) -> None:
    assert least(replace(job(components={"Master": (1, 1), "Worker": (4, 1)}), min_member=member)) == expected


def test_a_job_starts_with_its_min_member_and_the_rest_waits_beside_it() -> None:
    world = World()
    world.clusters(a=2, b=3)
    world.submit(replace(job(components={"Master": (1, 1), "Worker": (5, 1)}), min_member=3), policy())
    placement = world.placement(TRAIN)
    assert (placement.verdict, placement.min_member) == (Verdict.SCHEDULED, 3)
    (share,) = placement.shares
    assert (share.cluster, dict(share.components)) == ("b", {"Master": 1, "Worker": 5})
    assert sum(slot.count for slot in share.slots if slot.node_class) == 3
    assert world.assignment(TRAIN, "b").components == (("Master", 1), ("Worker", 5))


def test_a_cluster_that_takes_everything_goes_first_in_its_tier() -> None:
    world = World()
    world.clusters(a=3, b=6)
    world.submit(replace(job(components={"Worker": (6, 1)}), min_member=3), policy(["a", "b"]))
    assert world.assigned(TRAIN) == {"b": 6}


def test_the_tier_goes_before_what_fits_beside_the_gang() -> None:
    world = World()
    world.clusters(a=3, b=6)
    world.submit(replace(job(components={"Worker": (6, 1)}), min_member=3), policy(["a"], ["b"]))
    assert world.assigned(TRAIN) == {"a": 6}


def test_a_deployment_gets_what_fits_and_grows_in_the_same_cluster() -> None:
    world = World()
    world.clusters(a=4, b=3)
    world.submit(replace(deployment(replicas=6), min_member=3), policy(gang=True))
    assert world.assigned(LLM) == {"a": 4}
    assert world.placement(LLM).verdict is Verdict.PARTIALLY_SCHEDULED
    world.observe("b", gpus_free(*[1] * 9))
    assert world.assigned(LLM) == {"a": 4}
    world.snapshot("a", gpus_free(1, name="more"), bound={LLM: 4})
    assert world.assigned(LLM) == {"a": 5}


def test_below_its_min_member_nothing_starts() -> None:
    world = World()
    world.clusters(a=2, b=2)
    world.submit(replace(deployment(replicas=4), min_member=3), policy(gang=True))
    assert world.placement(LLM).verdict is Verdict.UNSCHEDULABLE
    world.observe("b", gpus_free(1, 1, 1))
    assert world.assigned(LLM) == {"b": 3}


def test_what_fits_only_with_stock_provisions() -> None:
    world = World()
    world.clusters(a=[gpus_free(1, 1)], b=[gpus_free(1, stock=2)])
    world.submit(job(components={"Worker": (4, 1)}), policy(ecs_provision=True))
    (share,) = world.placement(TRAIN).shares
    assert share.cluster == "b"
    assert [(s.source, s.count) for s in share.slots] == [(Source.RUNNING, 1), (Source.ELASTIC, 3)]


def test_stock_is_for_the_gang_only_where_running_nodes_do_not_do() -> None:
    """Within a tier what runs now goes first; the rest of the gang may then provision beside it."""
    world = World()
    world.clusters(a=[gpus_free(*[1] * 3, stock=1)], b=[gpus_free(1, stock=8)])
    world.submit(replace(job(components={"Worker": (6, 1)}), min_member=3), policy(ecs_provision=True))
    (share,) = world.placement(TRAIN).shares
    assert share.cluster == "a"
    assert [(s.source, s.count) for s in share.slots] == [(Source.RUNNING, 3), (Source.ELASTIC, 3)]


def test_among_equals_the_cluster_that_is_left_least_fragmented() -> None:
    world = World()
    world.clusters(a=[gpus_free(8)], b=[gpus_free(4)])
    world.submit(job(components={"Worker": (2, 2)}), policy())
    assert world.assigned(TRAIN) == {"b": 2}


@pytest.mark.parametrize(
    ("components", "never"),
    [
        ({"Worker": (3, 8)}, True),  # three nodes in all clusters together, never in one
        ({"Worker": (2, 8)}, False),
        ({"Master": (1, 8), "Worker": (2, 6)}, True),  # each role fits, all of them never do
        ({"Master": (1, 8), "Worker": (1, 6)}, False),
    ],
)
def test_what_could_never_fit_says_so_and_blocks_nobody(components: dict[str, tuple[int, int]], never: bool) -> None:
    world = World()
    world.clusters(a=[gpus_free(1, 1)], b=[gpus_free(3)])
    world.submit(job(components=components, arrival=1), policy())
    assert world.placement(TRAIN).verdict is Verdict.UNSCHEDULABLE
    codes = [reason.code.value for reason in world.placement(TRAIN).reasons]
    assert ("NeverFits" in codes) is never
    world.submit(job("small", components={"Worker": (1, 1)}, arrival=2))
    assert world.placement("test/PyTorchJob/small").verdict is Verdict.SCHEDULED


def test_min_member_decides_what_could_ever_fit() -> None:
    world = World()
    world.clusters(a=[gpus_free(0, 0)])
    world.submit(replace(job(components={"Worker": (5, 8)}), min_member=2), policy())
    assert "NeverFits" not in [reason.code.value for reason in world.placement(TRAIN).reasons]


def test_copies_are_gangs_of_their_own() -> None:
    world = World()
    world.clusters(a=4, b=4)
    world.submit(deployment(replicas=3), policy(gang=True, division=DivisionType.DUPLICATED))
    assert world.assigned(LLM) == {"a": 3, "b": 3}


def test_the_rest_of_a_running_gang_is_not_moved() -> None:
    for bound, moved in ((3, False), (2, True)):
        world = World()
        world.clusters(a=3)
        world.submit(replace(job(components={"Worker": (6, 1)}), min_member=3), policy())
        state = rescheduler.State()
        waiting = ComponentPods(bound=bound, unschedulable=(0.0,) * (6 - bound))
        events: list[rev.Event] = [
            rev.PlacementChanged(TRAIN, world.placement(TRAIN)),
            rev.PodsChanged("a", TRAIN, WorkloadPods("a", TRAIN, components=(("Worker", waiting),))),
        ]
        rescheduler.decide(state, events, 1000.0)
        out = rescheduler.decide(state, [], 1200.0)
        assert bool(out.evictions) is moved


def test_multi_component_sets_are_packed_largest_first() -> None:
    """Small pods first would leave no node whole for the large one."""
    world = World()
    world.clusters(a=[node_class(nodes=2)])
    world.submit(job(components={"Master": (4, 2), "Worker": (1, 8)}), policy())
    assert world.placement(TRAIN).verdict is Verdict.SCHEDULED
