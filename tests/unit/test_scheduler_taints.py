"""NoExecute taints of clusters: what they drive out, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpufleet.model.cluster import ClusterSpec
from gpufleet.model.policy import PropagationPolicy
from gpufleet.model.selectors import Taint, Toleration
from services.scheduler.core.events import ClusterRegistered, Tick
from services.scheduler.core.settings import Settings
from tests.support.scheduling import World, deployment, policy

LLM = "test/Deployment/llm"


def tainted(name: str, *, since: float | None = None, at: float | None = None) -> ClusterRegistered:
    return ClusterRegistered(ClusterSpec(name, taints=(Taint("down", "NoExecute", since=since),)), at)


def tolerating(*seconds: int | None) -> PropagationPolicy:
    made = policy(["a", "b"])
    rules = tuple(Toleration("down", "Exists", seconds=s) for s in seconds)
    return replace(made, placement=replace(made.placement, tolerations=rules))


def on_two_clusters(rule: PropagationPolicy) -> World:
    world = World(Settings(stale_after=1e9))
    world.clusters(a=4, b=4)
    world.submit(deployment(replicas=4), rule)
    assert world.assigned(LLM) == {"a": 2, "b": 2}
    return world


@pytest.mark.parametrize(
    ("seconds", "stays"),
    [((), 0.0), ((0,), 0.0), ((60,), 60.0), ((300, 60), 60.0), ((60, None), 60.0), ((None,), None), ((-5,), 0.0)],
)
def test_a_taint_drives_out_when_its_toleration_ends(seconds: tuple[int | None, ...], stays: float | None) -> None:
    world = on_two_clusters(tolerating(*seconds))
    world.now += 10
    world.feed(tainted("a"))
    start = world.now
    if stays:
        assert world.assigned(LLM) == {"a": 2, "b": 2}
        assert world.last.wake_at is not None
        assert world.last.wake_at <= start + stays
        world.now = start + stays - 1
        world.feed(Tick(), tainted("a"))
        assert world.assigned(LLM) == {"a": 2, "b": 2}
        world.now = start + stays
        world.feed(Tick())
    if stays is None:
        world.now += 1e6
        world.feed(Tick())
        assert world.assigned(LLM) == {"a": 2, "b": 2}
    else:
        assert world.assigned(LLM) == {"b": 4}
        world.feed(ClusterRegistered(ClusterSpec("a")))
        assert world.assigned(LLM) == {"b": 4}, "nothing moves back by itself"


def test_a_toleration_counts_from_when_the_taint_was_added() -> None:
    world = on_two_clusters(tolerating(60))
    world.feed(tainted("a", since=world.now - 50))
    assert world.assigned(LLM) == {"a": 2, "b": 2}
    world.now += 10
    world.feed(Tick())
    assert world.assigned(LLM) == {"b": 4}


def test_a_cluster_whose_toleration_has_ended_takes_nothing_new() -> None:
    world = on_two_clusters(tolerating(60))
    world.feed(tainted("a", since=world.now - 100))
    world.submit(deployment("other", replicas=2))
    assert world.assigned("test/Deployment/other") == {}
    assert world.codes("test/Deployment/other")["a"] == "ClusterTainted"


def test_a_restart_forgets_no_toleration() -> None:
    world = on_two_clusters(tolerating(60))
    world.feed(tainted("a", since=world.now))
    world.restart()
    assert world.assigned(LLM) == {"a": 2, "b": 2}
    world.now += 60
    world.feed(Tick())
    assert world.assigned(LLM) == {"b": 4}


def test_a_restart_counts_a_taint_without_a_time_from_its_registration() -> None:
    world = on_two_clusters(tolerating(60))
    start = world.now
    world.feed(tainted("a", at=start))
    world.now += 40
    world.restart()
    assert world.assigned(LLM) == {"a": 2, "b": 2}
    assert world.last.wake_at is not None
    assert world.last.wake_at <= start + 60
    world.now = start + 60
    world.feed(Tick())
    assert world.assigned(LLM) == {"b": 4}


def test_a_registration_from_the_future_counts_from_now() -> None:
    world = on_two_clusters(tolerating(60))
    world.feed(tainted("a", at=world.now + 1e6))
    world.now += 60
    world.feed(Tick())
    assert world.assigned(LLM) == {"b": 4}
