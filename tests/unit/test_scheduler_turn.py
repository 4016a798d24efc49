"""Whose turn it is: fair between quotas, blocking queues, nobody overtaken for ever, bounded waiting."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gpufleet.model.placement import ClusterCap, Eviction
from gpufleet.model.policy import PriorityClass
from gpufleet.model.queueing import counted, in_order
from gpufleet.model.reasons import Verdict
from gpufleet.model.resources import resources
from gpufleet.model.workload import PodShape, Workload
from services.scheduler.core.events import Evicted, PolicyChanged, Tick, WorkloadDeleted, WorkloadSubmitted
from services.scheduler.core.settings import Settings
from tests.support.quotas import quota, tree
from tests.support.scheduling import World, amounts, deployment, gpus_free, job, policy


def world(settings: Settings | None = None, *rules: Any, **clusters: Any) -> World:
    w = World(settings or Settings())
    w.clusters(**clusters)
    w.feed(*(PolicyChanged(rule) for rule in rules or (policy(),)))
    return w


def train(name: str, workers: int, arrival: int, namespace: str = "test", **rest: Any) -> Workload:
    found = job(name, {"Worker": (workers, 1)}, arrival=arrival, **rest)
    return replace(found, key=f"{namespace}/PyTorchJob/{name}", namespace=namespace)


def placed(w: World) -> dict[str, int]:
    return {key.rpartition("/")[2]: p.placed for key, (_, p) in sorted(w.placements.items()) if p is not None}


def key(name: str) -> str:
    return f"test/PyTorchJob/{name}"


def test_quotas_below_their_guarantee_go_first_and_then_the_smaller_share() -> None:
    w = World()
    w.clusters(a=gpus_free(8))
    one, two = quota("one", 2, 8, "ns1"), quota("two", 4, 8, "ns2")
    w.feed(
        PolicyChanged(tree(one, two, total=8)),
        PolicyChanged(policy(namespace="")),
        *(WorkloadSubmitted(train(f"a{i}", 1, i, "ns1")) for i in range(8)),
        *(WorkloadSubmitted(train(f"b{i}", 1, 10 + i, "ns2")) for i in range(8)),
    )
    found = placed(w)
    assert sum(found[f"a{i}"] for i in range(8)) == 3  # shares 3/2 and 5/4 are as near as they come
    assert sum(found[f"b{i}"] for i in range(8)) == 5
    assert w.placement("ns1/PyTorchJob/a3").queue_position == 1
    assert w.placement("ns2/PyTorchJob/b6").queue_position == 2


def test_in_a_blocking_queue_nobody_is_overtaken() -> None:
    w = world(Settings(blocking=True), a=gpus_free(4))
    w.submit(train("runs", 2, 1))
    w.submit(train("large", 4, 2))
    w.submit(train("small", 1, 3))
    assert placed(w) == {"large": 0, "runs": 2, "small": 0}
    assert (w.placement(key("small")).verdict, w.codes(key("small"))) == (Verdict.QUEUED, {"": "QueueBlocked"})
    assert w.placement(key("small")).queue_position == 2
    assert "test/PyTorchJob/large is first in the queue" in w.message(key("small"))
    w.feed(WorkloadDeleted(key("large")))
    assert placed(w)["small"] == 1


def test_when_the_first_is_placed_the_next_ones_have_their_turn() -> None:
    w = world(Settings(blocking=True), a=gpus_free(2))
    for i, name in enumerate(("first", "second", "third", "fourth")):
        w.submit(train(name, 2 if i < 3 else 1, i))
    assert placed(w) == {"first": 2, "fourth": 0, "second": 0, "third": 0}
    w.observe("a", gpus_free(2, 2))
    assert placed(w) == {"first": 2, "fourth": 0, "second": 2, "third": 0}
    w.observe("a", gpus_free(2, 2, 2, 1))
    assert placed(w) == {"first": 2, "fourth": 1, "second": 2, "third": 2}


def test_what_could_never_fit_blocks_nobody() -> None:
    w = world(Settings(blocking=True), a=gpus_free(4))
    w.submit(train("huge", 400, 1))
    w.submit(train("small", 1, 2))
    assert placed(w) == {"huge": 0, "small": 1}


def test_a_higher_priority_goes_before_the_first_of_a_blocking_queue() -> None:
    w = world(Settings(blocking=True), policy(), PriorityClass("high", 10), a=gpus_free(4))
    w.submit(train("large", 8, 1))
    w.submit(train("urgent", 2, 2, priority_class="high"))
    assert placed(w)["urgent"] == 2


def test_a_blocking_quota_blocks_itself_only() -> None:
    w = World()
    w.clusters(a=gpus_free(8))
    strict, loose = quota("strict", 2, 4, "ns1", blocking=True), quota("loose", 4, 4, "ns2")
    w.feed(PolicyChanged(tree(strict, loose)), PolicyChanged(policy(namespace="")))
    w.submit(train("first", 2, 0, "ns1"))
    w.submit(train("large", 3, 1, "ns1"))
    w.submit(train("small", 1, 2, "ns1"))
    w.submit(train("other", 1, 3, "ns2"))
    assert placed(w) == {"first": 2, "large": 0, "other": 1, "small": 0}
    assert "first in the queue of quota strict" in w.message("ns1/PyTorchJob/small")


def test_the_first_is_not_overtaken_for_ever() -> None:
    w = world(Settings(overtake_after=60.0), a=gpus_free(4, 4), b=gpus_free(4))
    for name in ("one", "two", "three", "four", "five", "six"):
        w.submit(train(name, 2, 1))
    w.submit(train("large", 8, 2))
    assert placed(w)["large"] == 0
    w.feed(WorkloadDeleted(key("one")))
    w.submit(train("early", 2, 3))
    assert placed(w)["early"] == 2  # so far it may be overtaken
    w.now += 70
    w.refresh()
    w.feed(Tick())
    w.submit(train("late", 1, 4))
    w.feed(WorkloadDeleted(key("early")))
    w.gone(key("early"), _cluster(w, "early"))
    w.feed(WorkloadDeleted(key("two")))
    assert placed(w)["large"] == 0
    where = {c for c, member in w.state.fleet.members.items() if member.held}
    assert where
    kept = w.state.queue.line("").kept
    assert kept == "a"
    late = w.assigned(key("late"))
    assert "a" not in late
    for name in ("three", "four", "five", "six"):
        w.feed(WorkloadDeleted(key(name)))
    assert placed(w)["large"] == 8
    assert w.state.queue.line("").kept_for is None


def _cluster(w: World, name: str) -> str:
    return next(c for (k, c), _ in w.assignments.items() if k == key(name))


def test_what_the_first_needs_of_its_quota_is_kept_too() -> None:
    w = World(Settings(overtake_after=60.0))
    w.clusters(a=gpus_free(8, 8))
    w.feed(PolicyChanged(tree(quota("team", 4, 4, "test"))), PolicyChanged(policy()))
    w.submit(train("runs", 2, 1))
    w.submit(train("large", 4, 2))
    w.now += 70
    w.refresh()
    w.feed(Tick())
    w.submit(train("small", 1, 3))
    assert placed(w) == {"large": 0, "runs": 2, "small": 0}
    w.feed(WorkloadDeleted(key("runs")))
    assert placed(w)["large"] == 4


def test_nobody_takes_for_itself_what_is_kept_of_a_quota() -> None:
    w = World(Settings(overtake_after=60.0))
    w.clusters(a=gpus_free(8, 8))
    ranks = (PriorityClass("polite", 10, preempts=False), PriorityClass("usual", 5), PriorityClass("spare", -10))
    w.feed(*(PolicyChanged(rule) for rule in (tree(quota("team", 4, 4, "test")), policy(), *ranks)))
    w.submit(train("runs", 2, 1, priority_class="polite"))
    w.submit(train("yields", 2, 2, priority_class="spare"))
    w.submit(train("large", 4, 3, priority_class="polite"))
    w.now += 70
    w.refresh()
    w.feed(Tick())
    w.submit(train("small", 1, 4, priority_class="usual"))
    assert placed(w) == {"large": 0, "runs": 2, "small": 0, "yields": 2}
    w.feed(WorkloadDeleted(key("large")))
    w.now += 10  # when it is tried again
    w.feed(Tick())
    assert placed(w) == {"runs": 2, "small": 1, "yields": 0}


def test_a_queue_time_out_gives_up() -> None:
    w = world(None, policy(queue_timeout=100.0), a=gpus_free(1))
    w.submit(train("large", 4, 1))
    assert w.placement(key("large")).verdict is Verdict.UNSCHEDULABLE
    w.now += 99
    w.refresh()
    w.feed(Tick())
    assert w.placement(key("large")).verdict is Verdict.UNSCHEDULABLE
    w.restart()
    w.now += 1
    w.refresh()
    w.feed(Tick())
    found = w.placement(key("large"))
    assert (found.verdict, found.reasons[0].code) == (Verdict.GIVEN_UP, "QueueTimeout")
    assert found.reasons[0].message == "waited for longer than the queueTimeout of 100 s"
    w.observe("a", gpus_free(8))
    assert w.placement(key("large")).verdict is Verdict.GIVEN_UP
    w.submit(train("large", 3, 1, digest="again"))
    assert w.placement(key("large")).verdict is Verdict.SCHEDULED


def test_what_runs_in_part_is_not_given_up() -> None:
    w = world(None, policy(queue_timeout=100.0), a=gpus_free(1))
    w.submit(deployment(replicas=3))
    w.now += 200
    w.refresh()
    w.feed(Tick())
    assert w.placement("test/Deployment/llm").verdict is Verdict.PARTIALLY_SCHEDULED


def _queue(w: World) -> list[str]:
    found = in_order(p for _, p in w.placements.values() if p is not None).get("", [])
    return [name.rpartition("/")[2] for name in found]


def test_records_tell_the_order_of_the_queue_without_being_written_again() -> None:
    w = world(None, policy(), PriorityClass("high", 10), a=gpus_free(2))
    for i, name in enumerate(("runs", "one", "two", "three")):
        w.submit(train(name, 2, i))
    w.submit(train("urgent", 3, 9, priority_class="high"))
    assert _queue(w) == ["urgent", "one", "two", "three"]
    before = {name: w.placement(key(name)) for name in ("two", "three")}
    w.feed(WorkloadDeleted(key("one")))
    assert _queue(w) == ["urgent", "two", "three"]
    assert {name: w.placement(key(name)) for name in ("two", "three")} == before
    two = next(p for p in counted(p for _, p in w.placements.values() if p is not None) if p.workload == key("two"))
    assert two.queue_position == 2 == w.state.queue.position(w.state.order(w.state.entry(key("two"))))


def test_a_changed_priority_class_moves_everybody_who_waits_with_it() -> None:
    w = world(None, policy(), PriorityClass("some", 1), a=gpus_free(1))
    w.submit(train("runs", 1, 1, priority_class="some"))
    for i in range(300):
        w.submit(train(f"plain{i}" if i % 2 else f"some{i}", 2, i + 2, priority_class="" if i % 2 else "some"))
    assert _queue(w)[0] == "some0"
    w.feed(PolicyChanged(PriorityClass("some", -1)))
    assert w.state.queue.position(w.state.order(w.state.entry(key("some0")))) == 151
    while w.state.moved:
        assert w.last.wake_at is not None
        w.now = w.last.wake_at
        w.feed(Tick())
    found = _queue(w)
    assert all(name.startswith("plain") for name in found[:150])
    assert found[150] == "some0"
    assert [w.state.queue.position(w.state.order(w.state.entry(key(name)))) for name in found] == [*range(1, 301)]


def test_a_restart_does_not_end_the_wait_of_the_first() -> None:
    w = world(Settings(overtake_after=60.0), a=gpus_free(4))
    w.submit(train("runs", 2, 1))
    w.submit(train("large", 4, 2))
    w.now += 50
    w.refresh()
    w.restart()
    w.submit(train("early", 1, 3))
    assert placed(w)["early"] == 1  # so far it may be overtaken
    w.now += 20
    w.refresh()
    w.feed(Tick())
    w.submit(train("late", 1, 4))
    assert placed(w) == {"early": 1, "large": 0, "late": 0, "runs": 2}
    w.restart()
    w.refresh()
    assert placed(w)["late"] == 0
    for name in ("runs", "early"):
        w.feed(WorkloadDeleted(key(name)))
        w.gone(key(name), "a")
    assert placed(w)["large"] == 4


def test_who_leaves_the_queue_and_comes_back_waits_anew() -> None:
    w = world(None, a=gpus_free(2))
    w.submit(train("runs", 2, 1))
    w.submit(train("waits", 2, 2))
    assert w.placement(key("waits")).waiting_since == w.now
    first, w.now = w.now, w.now + 20
    w.refresh()
    w.feed(Tick())
    assert w.placement(key("waits")).waiting_since == first
    w.observe("a", gpus_free(2, 2))
    assert w.placement(key("waits")).waiting_since is None


def overtaken_too_long(*more: Workload) -> World:
    """Nine of twelve GPUs are in use, and a job of eight is first in the queue and has waited for too long."""
    w = world(Settings(overtake_after=60.0), a=gpus_free(4, 4, 4))
    for i, name in enumerate(("one", "two", "three")):
        w.submit(train(name, 3, i))
    w.submit(train("large", 8, 5))
    for workload in more:
        w.submit(workload)
    w.now += 70
    w.refresh()
    w.feed(Tick())
    assert w.state.queue.line("").kept == "a"
    return w


def end(w: World, name: str) -> None:
    w.feed(WorkloadDeleted(key(name)))
    w.gone(key(name), "a")


def test_beside_what_is_kept_for_the_first_others_fill_in() -> None:
    w = overtaken_too_long()
    w.submit(train("fill", 3, 6))
    assert placed(w)["fill"] == 3  # eight and three fit beside each other once the others have gone
    end(w, "one")
    w.submit(train("two-more", 2, 7))
    assert placed(w)["two-more"] == 0
    assert w.message(key("two-more"), "a").startswith("kept for test/PyTorchJob/large, which is first in the queue")
    w.submit(train("one-more", 1, 8))
    assert placed(w)["one-more"] == 1
    w.restart()
    w.submit(train("another", 1, 9))
    assert placed(w)["another"] == 0
    end(w, "two")
    end(w, "three")
    assert (placed(w)["large"], placed(w)["another"]) == (8, 0)


def test_of_a_deployment_so_many_replicas_fill_in_as_leave_the_first_its_place() -> None:
    w = overtaken_too_long()
    w.submit(deployment("web", 6, arrival=6))
    assert placed(w)["web"] == 3
    end(w, "one")
    w.refresh()
    w.now += 10
    w.refresh()
    w.feed(Tick())
    assert placed(w)["web"] == 4
    assert w.message("test/Deployment/web", "a").endswith("; 4 pods of this one fit beside it")
    end(w, "two")
    end(w, "three")
    assert placed(w)["large"] == 8


def test_node_classes_that_the_first_cannot_use_are_not_kept() -> None:
    picky = PodShape(resources(amounts(gpu=1)), node_selector=(("kind", "x"),))
    w = world(
        Settings(overtake_after=60.0),
        a=(gpus_free(4, name="x", node_labels={"kind": "x"}), gpus_free(4, name="y", node_labels={"kind": "y"})),
    )
    w.submit(deployment("runs", 1, arrival=1, shape=picky))
    large = train("large", 4, 2)
    w.submit(replace(large, components=(replace(large.components[0], shape=picky),)))
    w.now += 70
    w.refresh()
    w.feed(Tick())
    w.submit(deployment("other", 9, arrival=3, shape=replace(picky, node_selector=(("kind", "y"),))))
    assert placed(w) == {"large": 0, "other": 4, "runs": 1}
    w.submit(deployment("same", 1, arrival=4, shape=picky))
    assert placed(w)["same"] == 0


def test_nothing_stays_kept_for_the_first_once_it_is_placed_at_another_priority() -> None:
    w = overtaken_too_long()
    w.feed(PolicyChanged(PriorityClass("low", -5)))
    w.submit(train("large", 8, 5, priority_class="low", digest="again"))
    assert w.state.queue.line("").kept_for == w.state.order(w.state.entry(key("large")))
    for name in ("one", "two", "three"):
        end(w, name)
    assert placed(w)["large"] == 8
    assert w.state.queue.line("").kept_for is None
    w.submit(train("rest", 4, 9, priority_class="low"))
    assert placed(w)["rest"] == 4


def test_who_goes_to_another_queue_leaves_what_was_kept_for_it() -> None:
    w = World(Settings(overtake_after=60.0))
    w.clusters(a=gpus_free(8, 8))
    w.feed(PolicyChanged(tree(quota("team", 4, 4, "test"), quota("other", 2, 2, "others"))), PolicyChanged(policy()))
    for name, workers in (("runs", 2), ("large", 4)):
        w.submit(train(name, workers, workers))
    w.now += 70
    w.refresh()
    w.feed(Tick())
    w.submit(train("small", 1, 9))
    assert placed(w) == {"large": 0, "runs": 2, "small": 0}
    w.submit(train("large", 4, 4, digest="moved", labels=(("quota.scheduling.alibabacloud.com/name", "other"),)))
    assert placed(w) == {"large": 0, "runs": 2, "small": 1}


def test_what_asks_for_less_than_before_is_woken_by_less_room() -> None:
    w = world(None, a=gpus_free(1))
    w.submit(deployment("web", gpu=8))
    web = "test/Deployment/web"
    cap = ClusterCap("b", 0, w.now + 1000, "PendingTooLong")
    w.feed(Evicted(Eviction(web, w.placement(web).version, at=w.now, caps=(cap,))))
    w.submit(deployment("web", gpu=2))
    w.observe("a", gpus_free(2))
    assert placed(w) == {"web": 1}
