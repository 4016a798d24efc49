"""Whatever happens to a divided Job: what runs keeps its completions, and none are given away twice."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gpufleet.model import kinds
from gpufleet.model.placement import ObservedPhase, WorkloadHealth
from gpufleet.model.policy import DivisionType
from gpufleet.model.workload import Workload
from services.dispatcher.core.render import render
from services.scheduler.core.events import ClusterRemoved, RescheduleRequested
from services.scheduler.core.settings import Settings
from tests.support import manifests
from tests.support.scheduling import World, policy

X = "test/Job/x"
COMPLETIONS = 40
CLUSTERS = ("a", "b", "c")


def batch(parallelism: int, completions: int | None) -> Workload:
    manifest = manifests.job(parallelism, completions)
    return kinds.interpret(manifest)


steps = st.one_of(
    st.tuples(st.just("parallelism"), st.integers(1, 20)),
    st.tuples(st.just("room"), st.tuples(st.sampled_from(CLUSTERS), st.integers(0, 12))),
    st.tuples(st.just("lost"), st.sampled_from(CLUSTERS)),
    st.tuples(st.just("refused"), st.sampled_from(CLUSTERS)),
    st.tuples(st.just("gone"), st.sampled_from(CLUSTERS)),
    st.tuples(st.sampled_from(["restart", "reschedule"]), st.none()),
)


def running(world: World) -> dict[str, tuple[int, int | None]]:
    """Parallelism and completions of what is ordered to run, by cluster."""
    found = {}
    for cluster, state in world.states(X).items():
        if state == "Active":
            spec = render(world.assignment(X, cluster))["spec"]
            found[cluster] = (spec["parallelism"], spec.get("completions"))
    return found


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([DivisionType.DYNAMIC, DivisionType.AGGREGATED, DivisionType.STATIC]),
    st.booleans(),
    st.booleans(),
    st.lists(steps, max_size=12),
)
def test_completions_are_settled(
    division: DivisionType, groups: bool, counted: bool, script: list[tuple[str, object]]
) -> None:
    completions = COMPLETIONS if counted else None
    world = World(Settings(stale_after=1e9))
    world.clusters(a=4, b=8, c=2)
    rule = policy(*((["a"], ["b", "c"]) if groups else ()), division=division, kinds=[("batch/v1", "Job")])
    world.submit(batch(6, completions), rule)
    before = running(world)
    for what, value in script:
        match what, value:
            case "parallelism", int(count):
                world.submit(batch(count, completions))
            case "room", (str(cluster), int(count)):
                world.clusters(**{cluster: count})
            case "lost", str(cluster):
                world.feed(ClusterRemoved(cluster))
            case "refused", str(cluster) if (X, cluster) in world.assignments and cluster in running(world):
                world.observed(X, cluster, ObservedPhase.REFUSED, WorkloadHealth.UNKNOWN, message="no")
            case "gone", str(cluster) if world.states(X).get(cluster) == "Removing":
                world.gone(X, cluster)
            case "restart", _:
                world.restart()
            case "reschedule", _:
                world.feed(RescheduleRequested(X))
        now = running(world)
        for cluster in now.keys() & before.keys():
            # The same copy all along, unless it was removed in between, which takes a step of its own.
            assert now[cluster][1] == before[cluster][1]
        for count, share in now.values():
            assert count >= 1
            assert (share is None) is (completions is None)
            assert share is None or share >= 1, "a part with nothing to complete"
        if completions is not None:
            assert sum(share or 0 for _, share in now.values()) <= completions
        before = now
    # With room everywhere, and nothing left of earlier copies, all of it runs.
    world.clusters(**dict.fromkeys(CLUSTERS, 60))
    world.submit(batch(21, completions))
    for cluster, state in world.states(X).items():
        if state == "Removing":
            world.gone(X, cluster)
    parts = running(world)
    assert sum(count for count, _ in parts.values()) == 21
    assert completions is None or sum(share or 0 for _, share in parts.values()) == completions
