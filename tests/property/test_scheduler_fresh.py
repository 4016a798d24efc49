"""The cheap way to place what is new gives what the general way gives."""

from __future__ import annotations

from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from services.scheduler.core import room
from services.scheduler.core.events import WorkloadDeleted
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
