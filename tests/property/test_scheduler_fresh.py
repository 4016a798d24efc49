"""The cheap way to place what is new gives what the general way gives."""

from __future__ import annotations

from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from services.scheduler.core import place, room
from services.scheduler.core.events import WorkloadDeleted
from services.scheduler.core.settings import Settings
from tests.support.scheduling import World, deployment, gpus_free, policy

CLUSTERS = ("a", "b", "c", "d")
FREE = st.lists(st.integers(0, 8), max_size=3)
STOCK = st.one_of(st.none(), st.integers(0, 2))


@given(
    st.fixed_dictionaries({name: st.tuples(FREE, FREE, STOCK) for name in CLUSTERS}),
    st.sampled_from([(), (CLUSTERS[:2], CLUSTERS[2:]), (CLUSTERS[:1], CLUSTERS[1:3], CLUSTERS[3:])]),
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from([1, 1, 2]), st.booleans()), max_size=8),
    st.booleans(),
    st.booleans(),
)
@settings(deadline=None)
def test_decisions_are_the_same(
    clusters: dict[str, tuple[list[int], list[int], int | None]],
    groups: tuple[tuple[str, ...], ...],
    steps: list[tuple[int, int, bool]],
    provision: bool,
    existing_first: bool,
) -> None:
    def run() -> tuple[object, object]:
        world = World()
        world.clusters(
            **{
                name: [gpus_free(*one, name="one"), gpus_free(*two, name="two", stock=stock)]
                for name, (one, two, stock) in clusters.items()
            }
        )
        rule = policy(*groups, ecs_provision=provision, existing_capacity_first=existing_first)
        for number, (replicas, gpu, delete) in enumerate(steps):
            world.submit(deployment(f"w{number}", replicas, gpu=gpu, uid=f"uid-{number}", arrival=number), rule)
            if delete and number:
                world.feed(WorkloadDeleted(f"test/Deployment/w{number - 1}"))
        return world.placements, world.assignments

    cheap = run()
    with mock.patch.object(room, "_all_at_once", return_value=False):
        general = run()
    assert cheap == general


@given(
    st.lists(st.integers(0, 3), min_size=6, max_size=6),
    st.lists(st.integers(0, 6), min_size=1, max_size=4),
    st.sampled_from([1, 2, 3]),
)
@settings(deadline=None)
def test_clusters_without_a_reason_of_their_own_are_counted(free: list[int], sizes: list[int], limit: int) -> None:
    """However few are named, as many clusters are spoken of."""

    def spoken_of(named: int) -> list[int]:
        world = World(settings=Settings(reason_clusters=named))
        names = [f"c{i}" for i in range(6)]
        world.clusters(**dict(zip(names, free, strict=True)))
        rule = policy(names[:2], names[2:4], names[4:])
        counts = []
        for number, replicas in enumerate(sizes):
            world.submit(deployment(f"w{number}", replicas, arrival=number), rule)
            reasons = world.placement(f"test/Deployment/w{number}").reasons
            more = sum(int(r.message.split()[0]) for r in reasons if r.message.endswith(" more clusters"))
            counts.append(more + sum(bool(r.cluster) for r in reasons))
            assert sum(bool(r.cluster) for r in reasons) <= named
        return counts

    assert spoken_of(limit) == spoken_of(100)


def test_what_is_plain_and_new_takes_the_cheap_way() -> None:
    world = World()
    world.clusters(a=4, b=4)
    with mock.patch.object(place, "build", side_effect=AssertionError("the general way")):
        world.submit(deployment("w", 6), policy(("a",), ("b",)))
    assert world.assigned("test/Deployment/w") == {"a": 4, "b": 2}
