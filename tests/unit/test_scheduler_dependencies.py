"""propagateDeps: what pods name goes where the pods go, and nowhere else."""

from __future__ import annotations

from typing import Any

from gpufleet.model import kinds
from gpufleet.model.policy import DivisionType, PropagationPolicy
from gpufleet.model.reasons import Verdict
from gpufleet.model.workload import Workload
from services.dispatcher.core.render import render
from services.scheduler.core.events import PolicyChanged, PolicyRemoved, Scaled, WorkloadDeleted, WorkloadSubmitted
from services.scheduler.core.settings import Settings
from tests.support import manifests
from tests.support.scheduling import World, policy

CONFIG = "test/ConfigMap/config"
APP = "test/Deployment/app"


def config(value: str = "1") -> Workload:
    return kinds.interpret(manifests.supporting("ConfigMap", "config", data={"key": value}))


def app(name: str = "app", replicas: int = 2, refers: str = "config") -> Workload:
    manifest = manifests.deployment(replicas)
    manifest["metadata"]["name"] = name
    manifest["spec"]["template"]["spec"]["volumes"] = [{"name": "v", "configMap": {"name": refers}}]
    return kinds.interpret(manifest)


def world(*given: Any, deps: bool = True, **clusters: int) -> World:
    made = World(Settings(stale_after=1e9))
    made.clusters(**(clusters or {"a": 4, "b": 4, "c": 4}))
    made.feed(PolicyChanged(policy(["a"], ["b"], propagate_deps=deps)), *map(WorkloadSubmitted, given))
    return made


def where(made: World, key: str = CONFIG) -> list[str]:
    """The clusters that have it, or are to have it."""
    return [cluster for cluster, state in made.states(key).items() if state == "Active"]


def test_it_goes_where_the_pods_go() -> None:
    made = world(app(), config())
    placement = made.placement(CONFIG)
    assert (placement.verdict, placement.policy, placement.replicas) == (Verdict.SCHEDULED, "", 0)
    assert where(made) == ["a"]
    assert made.message(CONFIG) == f"is needed by {APP}"
    assert render(made.assignment(CONFIG, "a"))["data"] == {"key": "1"}
    made.feed(Scaled(APP, 6))
    assert where(made) == ["a", "b"]
    made.feed(Scaled(APP, 3))
    assert made.states(CONFIG) == {"a": "Active", "b": "Removing"}


def test_it_may_come_later() -> None:
    made = world(app())
    made.feed(WorkloadSubmitted(config()))
    assert where(made) == ["a"]


def test_a_change_of_it_is_written_and_moves_nothing() -> None:
    made = world(app(), config())
    made.feed(WorkloadSubmitted(config("2")))
    assert render(made.assignment(CONFIG, "a"))["data"] == {"key": "2"}
    assert where(made) == ["a"]


def test_without_propagate_deps_nothing_travels() -> None:
    made = world(app(), config(), deps=False)
    assert (where(made), made.codes(CONFIG)) == ([], {"": "NoMatchingPolicy"})
    made.feed(PolicyChanged(policy(["a"], ["b"], propagate_deps=True, version=2)))
    assert where(made) == ["a"]
    made.feed(PolicyChanged(policy(["a"], ["b"], version=3)))
    assert made.states(CONFIG) == {"a": "Removing"}


def test_it_stays_until_the_last_one_that_needs_it_is_gone() -> None:
    made = world(app(), app("two"), config())
    assert where(made) == ["a"]
    made.feed(WorkloadDeleted(APP))
    assert where(made) == ["a"]
    made.feed(WorkloadSubmitted(app("two", refers="other")))
    assert made.states(CONFIG) == {"a": "Removing"}
    made.gone(CONFIG, "a")
    assert made.states(CONFIG) == {}
    assert made.placement(CONFIG).verdict is Verdict.UNSCHEDULABLE


def test_it_is_written_as_the_policy_of_who_needs_it_says() -> None:
    made = World(Settings(stale_after=1e9))
    made.clusters(a=4)
    made.feed(
        PolicyChanged(policy(["a"], propagate_deps=True, create_namespaces=True, conflict_overwrite=True)),
        WorkloadSubmitted(app()),
        WorkloadSubmitted(config()),
    )
    assignment = made.assignment(CONFIG, "a")
    assert (assignment.create_namespaces, assignment.conflict_overwrite, assignment.job) == (True, True, False)


def test_a_restart_changes_nothing() -> None:
    made = world(app(), config())
    out = made.restart()
    assert (where(made), out.assignments) == (["a"], [])
    made.feed(WorkloadDeleted(APP))
    assert made.states(CONFIG) == {"a": "Removing"}


def test_what_is_not_known_takes_nothing_away() -> None:
    made = world(app(), config())
    made.feed(PolicyRemoved("PropagationPolicy/test/pp"))
    assert where(made) == ["a"]
    made.restart()
    assert where(made) == ["a"]
    made = world(app(), config())
    made.inputs = [e for e in made.inputs if not (isinstance(e, WorkloadSubmitted) and e.workload.key == APP)]
    made.restart()
    assert (made.placement(APP).verdict, where(made)) == (Verdict.ORPHANED, ["a"])


def selecting(division: DivisionType, *groups: list[str]) -> PropagationPolicy:
    return policy(*groups, name="own", kinds=[("v1", "ConfigMap")], division=division)


def test_a_policy_of_its_own_puts_it_into_every_cluster() -> None:
    for division in DivisionType:
        made = world(config())
        made.feed(PolicyChanged(selecting(division, ["b", "c"])))
        assert (where(made), made.placement(CONFIG).verdict) == (["b", "c"], Verdict.SCHEDULED), division
        made.restart()
        assert where(made) == ["b", "c"]


def test_both_a_policy_of_its_own_and_who_needs_it() -> None:
    made = world(app(), config())
    made.feed(PolicyChanged(selecting(DivisionType.DUPLICATED, ["b", "c"])))
    assert where(made) == ["a", "b", "c"]
    made.feed(WorkloadDeleted(APP))
    assert where(made) == ["b", "c"]


def test_deleting_it_removes_it() -> None:
    made = world(app(), config())
    made.feed(WorkloadDeleted(CONFIG))
    assert made.states(CONFIG) == {"a": "Removing"}
    made.gone(CONFIG, "a")
    assert made.placements[CONFIG][1] is None
