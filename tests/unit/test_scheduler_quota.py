"""Quotas over the fleet: admission, accounting, what waits and what wakes it (specification 13.3)."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from gpufleet.model.placement import WorkloadHealth
from gpufleet.model.policy import DivisionType, PropagationPolicy
from gpufleet.model.quota import MAX_JOBS, NAME_LABELS, PREEMPTIBLE_LABELS, QueueRule
from gpufleet.model.reasons import Code, Verdict
from gpufleet.model.resources import labels, resources
from gpufleet.model.workload import PodShape, Workload
from services.scheduler.core.events import PolicyChanged, PolicyRemoved, WorkloadDeleted, WorkloadSubmitted
from tests.support.quotas import GPU, quota, tree
from tests.support.scheduling import World, amounts, deployment, gpus_free, job, policy

LLM, TRAIN = "test/Deployment/llm", "test/PyTorchJob/train"


def world(*rules: Any, gpus: int = 100, policies: tuple[PropagationPolicy, ...] = ()) -> World:
    found = World()
    found.clusters(a=gpus_free(gpus // 2, allocatable=NODE), b=gpus_free(gpus - gpus // 2, allocatable=NODE))
    found.feed(PolicyChanged(tree(*rules)), *(PolicyChanged(p) for p in policies or (policy(),)))
    return found


NODE = {"cpu": 10**6, "memory": 2**50, "pods": 1000, GPU: 100}


def labelled(workload: Workload, **found: str) -> Workload:
    keys = {"quota": NAME_LABELS[0], "preemptible": PREEMPTIBLE_LABELS[0]}
    return Workload(
        **{
            **{name: getattr(workload, name) for name in workload.__dataclass_fields__},
            "labels": labels({keys[name]: value for name, value in found.items()}),
        }
    )


def test_a_deployment_gets_as_many_replicas_as_its_quota_has_room_for() -> None:
    w = world(quota("team", 2, 4, "test"))
    w.submit(deployment(replicas=6))
    assert w.placement(LLM).verdict is Verdict.PARTIALLY_SCHEDULED
    assert w.placement(LLM).placed == 4
    assert w.codes(LLM) == {"": "QuotaExceeded"}
    assert w.message(LLM) == "Insufficient quota(nvidia.com/gpu) in quota team: needs 6, 0 of max 4 is used by others"
    assert w.placement(LLM).reasons[0].needs == "quota team: 2 more nvidia.com/gpu in max"


def test_the_numbers_are_right_where_there_is_less_room_than_quota() -> None:
    w = World()
    w.clusters(a=gpus_free(3))
    w.feed(PolicyChanged(tree(quota("team", 2, 4, "test"), quota("rest", 0, 9, "x"))), PolicyChanged(policy()))
    w.submit(deployment("other", 1, arrival=1))
    w.submit(deployment(replicas=6, arrival=2))
    assert w.placement(LLM).placed == 2
    assert w.message(LLM) == ("Insufficient quota(nvidia.com/gpu) in quota team: needs 6, 1 of max 4 is used by others")


def test_what_is_placed_whole_waits_for_all_of_its_quota() -> None:
    w = world(quota("team", 2, 4, "test"))
    w.submit(deployment(replicas=3))
    w.submit(job(components={"Worker": (2, 1)}))
    assert (w.placement(TRAIN).verdict, w.placement(TRAIN).placed) == (Verdict.QUEUED, 0)
    assert w.placement(TRAIN).queue_position == 1
    assert w.message(TRAIN) == "Insufficient quota(nvidia.com/gpu) in quota team: needs 2, 3 of max 4 is used"
    assert w.placement(TRAIN).reasons[0].needs == "quota team: 1 more nvidia.com/gpu in max"


def test_freed_quota_wakes_only_who_may_fit_now() -> None:
    w = world(quota("team", 2, 4, "test"), quota("other", 2, 2, "elsewhere"))
    w.submit(deployment(replicas=4))
    w.submit(job("large", {"Worker": (4, 1)}, arrival=1))
    w.submit(job("small", {"Worker": (1, 1)}, arrival=2))
    out = w.submit(deployment(replicas=2, version=2, digest="less"))
    assert w.assigned("test/PyTorchJob/small")
    assert w.placement("test/PyTorchJob/large").verdict is Verdict.QUEUED
    assert out.counters["decisions"] == 2
    out = w.feed(WorkloadDeleted(LLM))
    assert "decisions" not in out.counters  # three are free then, and the large one needs four


def test_a_finished_job_gives_its_quota_back() -> None:
    w = world(quota("team", 2, 2, "test"))
    w.submit(job("one", {"Worker": (2, 1)}, arrival=1))
    w.submit(job("two", {"Worker": (2, 1)}, arrival=2))
    assert w.placement("test/PyTorchJob/two").verdict is Verdict.QUEUED
    (cluster,) = w.assigned("test/PyTorchJob/one")
    w.observed("test/PyTorchJob/one", cluster, health=WorkloadHealth.SUCCEEDED)
    assert w.placement("test/PyTorchJob/two").verdict is Verdict.SCHEDULED


def test_a_changed_tree_wakes_who_waits_and_takes_nothing_away() -> None:
    w = world(quota("team", 2, 4, "test"))
    w.submit(deployment(replicas=6))
    w.feed(PolicyChanged(tree(quota("team", 2, 5, "test"), version=1)))
    assert w.placement(LLM).placed == 5
    w.feed(PolicyChanged(tree(quota("team", 1, 1, "test"), version=2)))
    assert w.placement(LLM).placed == 5
    w.feed(PolicyRemoved("ElasticQuotaTree/kube-system/eq"))
    assert w.placement(LLM).placed == 6


def test_a_quota_above_bounds_too() -> None:
    w = world(quota("org", 4, 4, children=(quota("one", 1, 4, "test"), quota("two", 2, 4))))
    w.submit(labelled(deployment("other", 3), quota="two"))
    w.submit(deployment(replicas=3))
    assert w.placement(LLM).placed == 1
    assert "in quota org" in w.message(LLM)


def test_t12_non_preemptible_use_is_bounded_by_min_though_max_is_free() -> None:
    w = world(quota("team", 2, 9, "test"))
    w.submit(labelled(job(components={"Worker": (3, 1)}), preemptible="false"))
    assert w.placement(TRAIN).verdict is Verdict.QUEUED
    assert w.message(TRAIN) == (
        "Insufficient quota(nvidia.com/gpu) in quota team: needs 3 that is not preemptible, 0 of min 2 is used"
    )


def test_t13_max_jobs() -> None:
    w = world(quota("team", 2, {GPU: 9, MAX_JOBS: 1}, "test"))
    w.submit(job("one", {"Worker": (1, 1)}, arrival=1))
    w.submit(job("two", {"Worker": (1, 1)}, arrival=2))
    two = "test/PyTorchJob/two"
    assert (w.placement(two).verdict, w.codes(two)) == (Verdict.QUEUED, {"": "QuotaExceeded"})
    assert "1 of 1 jobs run" in w.message(two)


@pytest.mark.parametrize(
    ("head", "why"),
    [
        pytest.param(
            job("head", {"Worker": (12, 1)}, arrival=1),
            "needs 12 nvidia.com/gpu, but quota team has a max of 9 in all",
            id="more than max",
        ),
        pytest.param(
            labelled(job("head", {"Worker": (4, 1)}, arrival=1), preemptible="false"),
            "needs 4 nvidia.com/gpu, but quota team has a min of 3 in all",
            id="more than min",
        ),
        pytest.param(
            job("head", {"Worker": (9, 1)}, arrival=1),
            "no cluster could take all 9 pods of it even if it were empty and had all of its stock",
            id="more than any cluster has",
        ),
    ],
)
def test_what_never_fits_blocks_nobody_whatever_its_quota_says(head: Workload, why: str) -> None:
    w = World()
    w.clusters(a=gpus_free(6), b=gpus_free(6))
    w.feed(PolicyChanged(tree(quota("team", 3, 9, "test", blocking=True), total=9)), PolicyChanged(policy()))
    w.submit(job("first", {"Worker": (2, 1)}, arrival=0))
    w.submit(head)
    w.submit(job("small", {"Worker": (1, 1)}, arrival=2))
    never = [r.message for r in w.placement("test/PyTorchJob/head").reasons if r.code is Code.NEVER_FITS]
    assert never == [why]
    assert w.codes("test/PyTorchJob/head")[""] in ("QuotaExceeded", "NeverFits")
    assert w.placement("test/PyTorchJob/small").placed == 1


def test_max_jobs_counts_no_deployments() -> None:
    w = world(quota("team", 2, {GPU: 9, MAX_JOBS: 1}, "test"))
    w.submit(deployment("web", 2, arrival=1))
    w.submit(job("one", {"Worker": (1, 1)}, arrival=2))
    w.submit(deployment("more", 2, arrival=3))
    placed = {key: w.placement(f"test/{key}").placed for key in ("Deployment/web", "PyTorchJob/one", "Deployment/more")}
    assert placed == {"Deployment/web": 2, "PyTorchJob/one": 1, "Deployment/more": 2}


def test_a_job_that_is_submitted_again_counts_once() -> None:
    w = world(quota("team", 2, {GPU: 9, MAX_JOBS: 1}, "test"))
    w.submit(job("one", {"Worker": (1, 1)}, arrival=1))
    w.submit(job("one", {"Worker": (2, 1)}, arrival=2, digest="changed"))
    w.submit(job("two", {"Worker": (1, 1)}, arrival=3))
    assert w.placement("test/PyTorchJob/one").placed
    assert "1 of 1 jobs run" in w.message("test/PyTorchJob/two")
    w.feed(WorkloadDeleted("test/PyTorchJob/one"))
    assert w.placement("test/PyTorchJob/two").placed


def test_lend_limits_keep_idle_guarantees_back() -> None:
    rules = (quota("team", 2, 10, "test"), quota("idle", 6, 10, lend_limit=((GPU, 1),)))
    w = World()
    w.clusters(a=gpus_free(20, allocatable=NODE))
    w.feed(PolicyChanged(tree(*rules, total=10)), PolicyChanged(policy()))
    w.submit(deployment(replicas=10))
    assert w.placement(LLM).placed == 5  # 10 less the 5 that `idle` keeps of its 6


def test_who_uses_nothing_yet_is_admitted_where_there_is_room_for_one() -> None:
    found = set()
    for used, kept, one in product((0, 1, 2, 4), (0, 2), (False, True)):
        w = World()
        w.clusters(a=gpus_free(20, allocatable=NODE))
        idle = quota("idle", kept, 10, lend_limit=((GPU, 0),))
        team = quota("team", 2, {GPU: 4, MAX_JOBS: 1}, "test")
        w.feed(PolicyChanged(tree(team, idle, total=6)), PolicyChanged(policy()))
        w.submit(deployment(replicas=used))
        if one:
            w.submit(job("one", {"Worker": (1, 0)}, arrival=1))
        quotas, leaf = w.state.quotas, w.state.quotas.leaf("team")
        assert leaf is not None
        for unit, firm, is_job in product(((), ((GPU, 1),), ((GPU, 3),)), (False, True), (False, True)):
            room, _ = quotas.room("nobody", leaf, unit, firm=firm, job=is_job)
            assert quotas.admits(leaf, unit, firm=firm, job=is_job) is (room > 0)
            found.add(room > 0)
    assert found == {True, False}


def test_the_label_goes_before_the_namespace() -> None:
    w = world(quota("team", 1, 1, "test"), quota("big", 5, 5))
    w.submit(labelled(deployment(replicas=3), quota="big"))
    assert w.placement(LLM).placed == 3


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        (labelled(deployment(), quota="nope"), "its label names the quota nope, which is no leaf of the tree"),
        (job(), "the job doesn't belong to any elastic quota: no leaf names namespace test"),
    ],
)
def test_a_workload_without_quota(workload: Workload, message: str) -> None:
    w = world(quota("team", 5, 5, "elsewhere"))
    w.submit(workload)
    assert (w.placement(workload.key).verdict, w.codes(workload.key)) == (Verdict.QUEUED, {"": "NoQuota"})
    assert w.message(workload.key) == message
    w.feed(PolicyChanged(tree(quota("team", 5, 5, "test"), quota("nope", 5, 5), version=2)))
    assert w.placement(workload.key).verdict is Verdict.SCHEDULED


def test_a_deployment_outside_the_tree_is_not_bounded() -> None:
    w = world(quota("team", 1, 1, "elsewhere"))
    w.submit(deployment(replicas=3))
    assert w.placement(LLM).placed == 3


def on(model: str, gpu: int = 1) -> PodShape:
    return PodShape(resources(amounts(gpu=gpu)), node_selector=labels({"nvidia.com/gpu.product": model}))


def test_models_are_counted_apart() -> None:
    w = World()
    w.clusters(
        a=(
            gpus_free(8, name="a100", node_labels={"nvidia.com/gpu.product": "A100"}),
            gpus_free(8, 8, name="t4", node_labels={"nvidia.com/gpu.product": "T4"}),
        )
    )
    team = quota("team", None, {f"{GPU}/a100": 2, f"{GPU}/t4": 9}, "test", flavors=("a100", "t4"))
    w.feed(PolicyChanged(tree(team)), PolicyChanged(policy()))
    w.submit(deployment("big", 4, shape=on("A100")))
    w.submit(deployment("small", 4, shape=on("T4")))
    w.submit(deployment("any", 1))
    w.submit(deployment("other", 1, shape=on("V100")))
    assert {name: w.placement(f"test/Deployment/{name}").placed for name in ("big", "small", "any", "other")} == {
        "big": 2,
        "small": 4,
        "any": 0,
        "other": 0,
    }
    assert "counts GPUs by model" in w.message("test/Deployment/any")
    assert w.message("test/Deployment/other") == "quota team has no GPUs of model v100, only a100, t4"
    assert "Insufficient quota(nvidia.com/gpu/a100)" in w.message("test/Deployment/big")


@pytest.mark.parametrize(("division", "placed"), [(DivisionType.DUPLICATED, 2), (DivisionType.STATIC, 0)])
def test_what_is_not_divided_by_capacity_keeps_to_its_quota_too(division: DivisionType, placed: int) -> None:
    w = world(quota("team", 3, 3, "test"), policies=(policy(division=division),))
    w.submit(deployment(replicas=2 if division is DivisionType.DUPLICATED else 4))
    assert w.placement(LLM).placed == placed
    assert "QuotaExceeded" in w.codes(LLM).values()


def test_t10_a_suspended_job_starts_when_its_quota_lets_it() -> None:
    w = world(quota("team", 2, 2, "test"), policies=(policy(suspend_scheduling=True),))
    w.submit(job("one", {"Worker": (2, 1)}, arrival=1))
    w.submit(job("two", {"Worker": (2, 1)}, arrival=2))
    assert w.placement("test/PyTorchJob/one").verdict is Verdict.SCHEDULED
    assert w.placement("test/PyTorchJob/two").verdict is Verdict.QUEUED
    assert "Insufficient quota" in w.message("test/PyTorchJob/two")
    # A gang of another kind waits for all of it, too.
    w = world(quota("team", 2, 2, "test"), policies=(policy(suspend_scheduling=True, gang=True),))
    w.submit(deployment(replicas=3))
    assert (w.placement(LLM).verdict, w.assignments) == (Verdict.QUEUED, {})
    assert w.message(LLM) == "Insufficient quota(nvidia.com/gpu) in quota team: needs 3, 0 of max 2 is used"


def test_usage_is_the_same_after_a_restart() -> None:
    w = world(quota("team", 2, 4, "test"))
    w.submit(deployment(replicas=3))
    w.submit(job(components={"Worker": (2, 1)}, arrival=1))
    w.restart()
    assert w.placement(TRAIN).verdict is Verdict.QUEUED
    leaf = w.state.quotas.leaf("team")
    assert leaf is not None
    assert leaf.used == {GPU: 3}


def _train(name: str, workers: int, namespace: str, arrival: int) -> Workload:
    found = job(name, {"Worker": (workers, 1)}, arrival=arrival)
    return replace(found, key=f"{namespace}/PyTorchJob/{name}", namespace=namespace)


def test_a_queue_document_says_whether_its_quota_blocks_and_which_queue_goes_first() -> None:
    w = World()
    w.clusters(a=gpus_free(8))
    w.feed(
        PolicyChanged(tree(quota("one", 2, 8, "ns1"), quota("two", 2, 8, "ns2"))), PolicyChanged(policy(namespace=""))
    )
    w.feed(PolicyChanged(QueueRule("root-one", blocking=True)), PolicyChanged(QueueRule("x", "root/two", priority=1)))
    w.feed(
        *(WorkloadSubmitted(_train(f"w{i}", size, "ns1", i)) for i, size in enumerate((8, 1))),
        *(WorkloadSubmitted(_train(f"w{i}", 6, "ns2", i)) for i in (5, 6)),
    )
    assert w.placement("ns2/PyTorchJob/w5").placed == 6  # though it borrows, and came last
    assert w.codes("ns1/PyTorchJob/w1")[""] == "QueueBlocked"
    w.feed(PolicyRemoved("Queue/kube-queue/root-one"))
    assert w.placement("ns1/PyTorchJob/w1").placed == 1
