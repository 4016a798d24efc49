"""Past decisions made again from their records: every strategy, and records that are not what they should be."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from gpufleet.bus.records import Record
from gpufleet.cli import replay as command
from gpufleet.cli.errors import CliError, Exit
from gpufleet.cli.output import Format
from gpufleet.model.cluster import ClusterSpec, NamespaceQuota, VirtualNode
from gpufleet.model.log import HistoryEntry
from gpufleet.model.placement import ClusterCap, Eviction, ObservedPhase, Version, WorkloadHealth
from gpufleet.model.policy import (
    ClusterAffinity,
    DivisionType,
    PriorityClass,
    ResourcePolicy,
    ResourceUnit,
    SpreadConstraint,
    StaticWeight,
    UnitResource,
)
from gpufleet.model.reasons import Code, Reason, Verdict
from gpufleet.model.resources import labels, resources
from gpufleet.model.selectors import LabelSelector, Taint
from gpufleet.wire.records import dump_history, parse_history
from services.scheduler.core.events import (
    ClusterRegistered,
    Evicted,
    InventoryChanged,
    PolicyChanged,
    PolicyRemoved,
    RescheduleRequested,
    Scaled,
    WorkloadDeleted,
)
from services.scheduler.core.evidence import Evidence
from services.scheduler.core.state import Entry, State
from services.scheduler.history import Result, all_again, decide_again, history
from tests.support.decisions import through_json
from tests.support.quotas import quota, tree
from tests.support.scheduling import GPU, World, deployment, gpus_free, inventory, job, policy

LLM = "test/Deployment/llm"
TRAIN = "test/PyTorchJob/train"
EXAMPLES = Path(__file__).parents[2] / "proto" / "examples"
# Above what is recorded whole.
MANY = tuple(f"c{i:02}" for i in range(20))


class Recorder(World):
    """A world that keeps what is written of every decision, as a reader gets it."""

    def __post_init__(self) -> None:
        self.history: list[HistoryEntry] = []
        super().__post_init__()

    def feed(self, *events: Any, write: bool = True) -> Any:
        out = super().feed(*events, write=write)
        self.history += [through_json(history(entry)) for entry in out.history]
        return out


def many(room: int = 2, **stock: int) -> Recorder:
    """Twenty clusters with two classes each, all different."""
    w = Recorder()
    w.clusters(
        **{
            name: [
                gpus_free(*([room + i % 3] * (1 + i % 2)), name="one"),
                gpus_free(i % 5, name="two", stock=stock.get("stock")),
            ]
            for i, name in enumerate(MANY)
        }
    )
    return w


def dynamic() -> Recorder:
    w = many()
    w.submit(deployment("llm", 25), policy())
    w.submit(deployment("other", 30, gpu=2, arrival=1))
    w.feed(Scaled(LLM, 40))
    w.feed(Scaled(LLM, 5))
    return w


def overflow() -> Recorder:
    w = many()
    w.submit(deployment("llm", 9), policy(MANY[:3], MANY[3:10], MANY[10:]))
    w.submit(deployment("other", 60, arrival=1))
    w.submit(deployment("none", 400, arrival=2))
    return w


def stocked() -> Recorder:
    w = many(1, stock=2)
    w.submit(deployment("llm", 60), policy(MANY[:8], MANY[8:], ecs_provision=True))
    w.submit(deployment("other", 30, gpu=3, arrival=1))
    w.submit(job("train", {"Master": (1, 2), "Worker": (3, 4)}, arrival=2))
    return w


def duplicated() -> Recorder:
    w = many()
    w.submit(deployment("llm", 3), policy(division=DivisionType.DUPLICATED))
    w.feed(Scaled(LLM, 1))
    return w


def static() -> Recorder:
    w = many()
    weights = (StaticWeight(ClusterAffinity(cluster_names=MANY[:4]), 3), StaticWeight(ClusterAffinity(), 1))
    w.submit(deployment("llm", 17), policy(division=DivisionType.STATIC, static_weights=weights))
    w.feed(Scaled(LLM, 6))
    return w


def aggregated() -> Recorder:
    w = many()
    w.submit(deployment("llm", 11), policy(MANY[:5], MANY[5:], division=DivisionType.AGGREGATED))
    w.submit(deployment("other", 25, arrival=1))
    w.feed(Scaled(LLM, 17))
    return w


def spread() -> Recorder:
    w = Recorder()
    for i, name in enumerate(MANY):
        spec = ClusterSpec(name, region=f"r{i % 4}")
        w.feed(ClusterRegistered(spec), InventoryChanged(inventory(name, gpus_free(i % 6, 4), at=w.now)))
    rule = policy()
    narrow = (SpreadConstraint("region", min_groups=2, max_groups=2), SpreadConstraint("cluster", max_groups=5))
    w.submit(deployment("llm", 13), replace(rule, placement=replace(rule.placement, spread=narrow)))
    w.submit(deployment("more", 40, arrival=1))
    return w


def whole() -> Recorder:
    """Which clusters are left least fragmented depends on what everybody asks for."""
    w = many(4)
    w.feed(PolicyChanged(policy()))
    for number, (gpu, workers) in enumerate([(1, 2), (4, 1), (2, 3), (8, 2), (3, 2), (1, 30)]):
        w.submit(job(f"train{number}", {"Master": (1, 1), "Worker": (workers, gpu)}, arrival=number))
    w.feed(RescheduleRequested("test/PyTorchJob/train2"))
    return w


def gang() -> Recorder:
    w = many(8)
    rule = policy(gang=True, kinds=(("apps/v1", "Deployment"),))
    w.submit(replace(deployment("llm", 30), min_member=8), rule)
    w.submit(deployment("large", 99, arrival=1))
    return w


def preemption() -> Recorder:
    w = many(3)
    w.feed(PolicyChanged(PriorityClass("low", -1)), PolicyChanged(PriorityClass("high", 9)), PolicyChanged(policy()))
    for number, name in enumerate(("a", "b", "c")):
        w.submit(replace(deployment(name, 45, arrival=number), priority_class="low"))
    w.submit(replace(job("train", {"Worker": (3, 2)}, arrival=7), priority_class="high"))
    w.submit(replace(deployment("llm", 9, gpu=2, arrival=8), priority_class="high"))
    return w


def quotas() -> Recorder:
    w = many(8)
    w.feed(
        PolicyChanged(tree(quota("team", 4, 20, "test"), quota("rest", 50, 60, "x"), total=60)), PolicyChanged(policy())
    )
    w.submit(deployment("llm", 15, arrival=1))
    w.submit(deployment("more", 15, arrival=2))
    w.submit(job("train", {"Worker": (3, 4)}, arrival=3))
    w.feed(WorkloadDeleted(LLM, 4))
    return w


def two_losses() -> Recorder:
    """Within its quota a workload takes from one victim in several clusters, and is written down for each."""
    w = Recorder()
    w.clusters(a=3, b=3)
    w.feed(PolicyChanged(PriorityClass("low", -1)), PolicyChanged(PriorityClass("high", 9)), PolicyChanged(policy()))
    w.feed(PolicyChanged(tree(quota("team", 6, 6, "test"))))
    w.submit(replace(deployment("victim", 6, arrival=0), priority_class="low"))
    w.clusters(c=4)
    w.submit(replace(job("train", {"Worker": (4, 1)}, arrival=1), priority_class="high"))
    return w


def moved() -> Recorder:
    """What the rescheduler takes back, what is refused, what ends, what is deleted."""
    w = many()
    w.submit(deployment("llm", 12), policy())
    w.submit(job("train", {"Worker": (2, 2)}, arrival=1))
    first = w.placement(LLM).shares[0].cluster
    w.feed(Evicted(Eviction(LLM, w.placement(LLM).version, (ClusterCap(first, 0, w.now + 60, "Pending"),), at=w.now)))
    second = w.placement(LLM).shares[0].cluster
    w.observed(LLM, second, ObservedPhase.REFUSED, WorkloadHealth.UNKNOWN, message="no such kind")
    where = w.placement(TRAIN).shares[0].cluster
    w.observed(TRAIN, where, health=WorkloadHealth.SUCCEEDED)
    w.feed(WorkloadDeleted(LLM, 9))
    return w


def kept_out() -> Recorder:
    """Taints, a namespace's quota, a virtual node, pods that do not fit where they were promised a place."""
    w = many()
    bound = NamespaceQuota("test", (GPU,), resources({GPU: 3}), resources({GPU: 1}))
    w.feed(
        ClusterRegistered(ClusterSpec("c03", taints=(Taint("maintenance", "NoSchedule"),))),
        InventoryChanged(inventory("c05", gpus_free(8, name="one"), at=w.now, n=1, quotas=(bound,))),
        InventoryChanged(
            inventory("c06", at=w.now, n=1, virtual_nodes=(VirtualNode("vk", labels({"type": "virtual-kubelet"})),))
        ),
    )
    w.submit(deployment("llm", 30), policy())
    w.observe("c00", gpus_free(0, name="one"), n=2)
    w.submit(deployment("more", 30, arrival=1))
    w.submit(deployment("never", 2, gpu=9, arrival=2))
    w.submit(deployment("alone", 2, arrival=3, labels=labels({"app": "x"})), policy(name="later", version=2))
    return w


STRATEGIES = (
    *(dynamic, overflow, stocked, duplicated, static, aggregated, spread),
    *(whole, gang, preemption, two_losses, quotas, moved, kept_out),
)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.__name__)
def test_every_decision_of_a_strategy_is_the_same(strategy: Callable[[], Recorder]) -> None:
    world = strategy()
    results = all_again(world.history)
    assert [(r.entry.workload, r.result, r.told) for r in results if r.result is not Result.SAME] == []
    assert len(results) > 1


def test_what_is_kept_by_a_policy_that_is_gone_is_the_same() -> None:
    w = Recorder()
    w.clusters(a=4, b=4)
    w.submit(deployment("llm", 2), policy(["a"], lazy=True))
    w.feed(PolicyChanged(policy(["b"], name="pq", lazy=True)), PolicyRemoved("PropagationPolicy/test/pp"))
    w.feed(RescheduleRequested(LLM))
    assert w.placement(LLM).policy == "PropagationPolicy/test/pp"
    assert [made.result for made in all_again(w.history)] == [Result.SAME] * len(w.history)


def test_what_no_policy_selects_is_the_same_with_the_units_that_govern_it() -> None:
    w = Recorder()
    w.clusters(a=4)
    units = (ResourceUnit(UnitResource.ECS),)
    w.feed(PolicyChanged(ResourcePolicy("rp", "test", units, LabelSelector(labels({"app": "x"})), digest="rp")))
    w.submit(deployment("llm", 2, pod_labels={"app": "x"}))
    assert "units" in dict(w.placement(LLM).inputs)
    assert [made.result for made in all_again(w.history)] == [Result.SAME]


def test_who_loses_in_two_clusters_is_written_down_twice() -> None:
    assert [e.because for e in two_losses().history if e.workload == "test/Deployment/victim"][1:3] == [TRAIN, TRAIN]


def test_who_loses_its_place_follows_from_another_decision() -> None:
    entries = preemption().history
    lost = [entry for entry in entries if entry.because]
    assert {entry.because for entry in lost} <= {TRAIN, LLM}
    alone = decide_again(lost[0])
    assert (alone.result, alone.told) == (Result.FOLLOWS, (f"a consequence of the decision on {lost[0].because}",))
    assert lost[0].placement is not None
    keeps_all = replace(lost[0].placement, reasons=())
    changed_by_hand = [replace(e, placement=keeps_all) if e is lost[0] else e for e in entries]
    other = [r for r in all_again(changed_by_hand) if r.result is not Result.SAME]
    assert [(r.entry.version, r.result) for r in other] == [(lost[0].version, Result.DIFFERENT)]
    assert other[0].told[0].startswith("told: [] was recorded")


# -- records that are not what they should be --------------------------------------------------------------------------


def one() -> HistoryEntry:
    w = many()
    w.submit(deployment("llm", 6), policy(MANY[:2], MANY[2:]))
    return w.history[-1]


def changed(**fields: Any) -> HistoryEntry:
    entry = one()
    assert entry.placement is not None
    return replace(entry, placement=replace(entry.placement, **fields))


def test_what_was_changed_by_hand_is_found() -> None:
    placement = one().placement
    assert placement is not None
    first, *others = placement.shares
    more = replace(first, components=(("main", first.replicas + 1),))
    elsewhere = replace(first, slots=(replace(first.slots[0], node_class="elsewhere"), *first.slots[1:]))
    spoken = (*placement.reasons, Reason(Code.CLUSTER_TAINTED, "nobody tolerates it", "c00"))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"verdict": Verdict.UNSCHEDULABLE}, "verdict: Unschedulable was recorded, Scheduled follows"),
        ({"replicas": 7}, "pods wanted: 7 was recorded, 6 follows"),
        ({"shares": (more, *others)}, f"{first.cluster}: {more.replicas} main"),
        ({"shares": tuple(others)}, f"{first.cluster}: nothing was recorded"),
        ({"shares": (elsewhere, *others)}, "on elsewhere"),
        ({"reasons": spoken}, "reason ClusterTainted c00 nobody tolerates it was recorded and does not follow"),
        ({"policy": "PropagationPolicy/test/else"}, "policy: PropagationPolicy/test/else was recorded"),
        ({"queue_position": 3}, "queue position: 3 was recorded, None follows"),
        ({"inputs": (("workload", "other"),)}, "inputs: {'workload': 'other'} was recorded"),
    ]
    for edited, text in cases:
        result = decide_again(changed(**edited))
        assert result.result is Result.DIFFERENT, edited
        assert any(text in told for told in result.told), (text, result.told)
    assert decide_again(one()).result is Result.SAME


def test_what_it_saw_decides() -> None:
    """The state is what counts: less room in it, and another decision follows."""
    entry = one()
    state = json.loads(json.dumps(dict(entry.state)))
    first = next(cluster for cluster in state["clusters"] if cluster["name"] == "c00")
    first["classes"] = [seen | {"rooms": [0, 0, 0]} for seen in first["classes"]]
    result = decide_again(replace(entry, state=state))
    assert result.result is Result.DIFFERENT
    assert any(told.startswith("c00: ") and told.endswith("nothing follows") for told in result.told)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({}, "the record has no state: it was written by an earlier scheduler"),
        ({"format": 1}, "the record's state has format 1; this version reads format 2"),
        ({"key": LLM}, "the record's state has format None; this version reads format 2"),
        ({"format": 2}, "the record's state cannot be read: Object missing required field `key`"),
        (
            {"format": 2, "key": LLM, "now": "yesterday", "mode": "Fill"},
            "the record's state cannot be read: Expected `float`, got `str` - at `$.now`",
        ),
        (
            {"format": 2, "key": LLM, "now": 1.0, "mode": "Fill", "settings": {"stale_after": "long"}},
            "the record's state cannot be read: Expected `float`, got `str` - at `$.settings.stale_after`",
        ),
    ],
)
def test_a_state_that_cannot_be_read_says_so(state: dict[str, Any], told: str) -> None:
    result = decide_again(replace(one(), state=state))
    assert (result.result, result.told) == (Result.UNKNOWN, (told,))


def test_a_state_that_makes_no_sense_is_no_crash() -> None:
    entry = one()
    parts: tuple[dict[str, Any], ...] = ({"mode": "Later"}, {"policies": []}, {"clusters": []}, {"workload": None})
    for part in parts:
        result = decide_again(replace(entry, state={**entry.state, **part}))
        assert result.result in (Result.DIFFERENT, Result.UNKNOWN), part


def test_a_record_is_bounded_and_says_what_was_cut() -> None:
    w = many()
    out = w.submit(deployment("llm", 25), policy())
    whole_record = history(out.history[-1])
    size = len(dump_history(whole_record))
    assert decide_again(through_json(whole_record)).result is Result.SAME
    for most in (size * 3 // 4, size // 2, 4_000, 1_000):
        cut = through_json(history(out.history[-1], most))
        assert len(json.dumps(dict(cut.state))) <= max(most * 2, 4_000)
        result = decide_again(cut)
        if cut.omitted:
            assert result.result is Result.INEXACT
            assert result.told == tuple(f"not in the record: {what}" for what in cut.omitted)
        else:
            assert result.result is Result.SAME
    assert history(out.history[-1], 1_000).omitted


def test_what_only_explains_is_cut_first() -> None:
    w = many()
    out = w.submit(deployment("llm", 3), policy())
    entry = history(out.history[-1])
    size = len(json.dumps(dict(entry.state), separators=(",", ":")))
    cut = through_json(history(out.history[-1], size - 1))
    assert entry.state["rest"]
    assert not cut.state["rest"]
    assert not cut.omitted
    assert decide_again(cut).result is Result.SAME


def test_the_example_of_the_contract_is_a_decision_that_can_be_made_again() -> None:
    written_down = json.loads((EXAMPLES / "gpufleet.history.json").read_bytes())
    value = json.dumps(written_down["value"]).encode()
    entry = parse_history(Record("gpufleet.history", 0, 0, "test/Deployment/vllm-qwq", value, {}, 0.0))
    assert (entry.version, decide_again(entry).result) == (Version(12, 3), Result.SAME)


# -- the command -------------------------------------------------------------------------------------------------------


def written(path: Any, *entries: HistoryEntry, more: bytes = b"") -> str:
    path.write_bytes(b"".join(dump_history(entry) + b"\n" for entry in entries) + more)
    return str(path)


def test_a_file_is_read_line_by_line(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    entry = one()
    half = dump_history(entry)[:200]
    path = written(tmp_path / "h.jsonl", entry, more=b"\n[]\n" + half)
    assert [e.version for e in command.read_file(path, "")] == [entry.version]
    assert command.read_file(path, "test/Deployment/other") == []
    warnings = capsys.readouterr().err.splitlines()[:2]
    assert [warning.partition(" cannot be read")[0] for warning in warnings] == [
        f"warning: {path} line 3",
        f"warning: {path} line 4",
    ]
    with pytest.raises(CliError, match="no line of it can be read"):
        command.read_file(written(tmp_path / "bad.jsonl", more=half), "")
    with pytest.raises(CliError, match="No such file"):
        command.read_file(str(tmp_path / "none"), "")


def test_decisions_are_chosen_by_version_or_time() -> None:
    w = many()
    w.submit(deployment("llm", 6), policy())
    w.now += 60
    w.feed(Scaled(LLM, 9))
    w.submit(deployment("other", 3, arrival=1))
    versions = {e.version for e in w.history}
    assert {e.version for e in command.chosen(w.history, "", "")} == versions
    assert [e.decided_at for e in command.chosen(w.history, "1970-01-01T00:16:50Z", "")] == [1000.0]
    assert [e.workload for e in command.chosen(w.history, "1970-01-02T00:00:00Z", "")] == [LLM, "test/Deployment/other"]
    assert [e.version for e in command.chosen(w.history, "", "1.2")] == [Version(1, 2)]
    for at, decision in (("tomorrow", ""), ("", "1"), ("", "a.b")):
        with pytest.raises(CliError, match="is no"):
            command.chosen(w.history, at, decision)


def test_the_command_says_what_came_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    command.show([one()], Format.TABLE)
    told = capsys.readouterr()
    assert told.out.splitlines()[1].split() == [LLM, "1.1", "1970-01-01T00:16:40Z", "Scheduled", "6/6", "same"]
    assert told.err == "1 decision, 1 same\n"
    with pytest.raises(CliError) as failed:
        command.show([one(), changed(replicas=7), replace(one(), state={})], Format.TABLE)
    assert failed.value.code is Exit.FAILED
    told = capsys.readouterr()
    assert f"{LLM} 1.1 is another one when it is made again\n  pods wanted: 7 was recorded, 6 follows" in told.out
    assert told.err == "3 decisions, 1 same, 1 different, 1 unknown\n"
    command.show([one()], Format.JSON)
    shown = json.loads(capsys.readouterr().out)["decisions"][0]
    assert (shown["decision"], shown["again"], shown["told"]) == ("1.1", "same", [])


def test_explain_names_every_cluster_from_the_history(capsys: pytest.CaptureFixture[str]) -> None:
    """The record of a placement names ten clusters; what it saw of the others is in the history."""
    w = many()
    w.feed(ClusterRegistered(ClusterSpec("c19", taints=(Taint("maintenance", "NoSchedule"),))))
    w.submit(deployment("llm", 6, gpu=3), policy(MANY[:2], MANY[2:]))
    entry = w.history[-1]
    assert entry.placement is not None
    named = {r.cluster for r in entry.placement.reasons} | {s.cluster for s in entry.placement.shares}
    assert len(named - {""}) < len(MANY)
    command.explain([entry], LLM, Format.TABLE)
    text = capsys.readouterr().out
    assert text.startswith(f"{LLM} is Scheduled: 6 of 6 placed")
    assert "made again it is same" in text
    for name in MANY:
        assert name in text, name
    assert "more clusters" not in text
    command.explain([changed(replicas=7)], LLM, Format.TABLE)
    assert "only what was recorded is shown" in capsys.readouterr().err
    with pytest.raises(CliError, match="the history has no such decision"):
        command.explain([], LLM, Format.TABLE)


def test_explain_tells_no_free_blocks_that_the_record_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    w = Recorder()
    w.clusters(**{name: [gpus_free(4)] for name in MANY})
    rule = policy()
    w.feed(PolicyChanged(replace(rule, placement=replace(rule.placement, spread=(SpreadConstraint("cluster"),)))))
    w.submit(deployment("llm", 2, gpu=8))
    command.explain([w.history[-1]], LLM, Format.TABLE)
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line[:1] == "c"}
    said = ["largest free block 4" in rows[name] or "had no room for more of its pods" in rows[name] for name in MANY]
    assert said == [True] * len(MANY)
    assert sum("largest free block 4" in row for row in rows.values()) == 10


def test_every_part_of_the_state_is_in_the_record_or_known_not_to_count() -> None:
    """What is new here has to be noted by `witness`, unless no decision on a workload depends on it."""
    said = {field.name for field in fields(Evidence)}
    noted = {
        **{name: name for name in ("applied", "arrival", "deleted", "eviction", "expired", "gone", "held_in", "key")},
        **{name: name for name in ("observations", "pods", "scale", "unreadable", "workload")},
        "placement": "before",
        "assignments": "copies",
    }
    derived = {"booked", "current", "deadline", "derived", "timer", "ways", "ways_for"}
    written_only = {"overwritten", "rewrite"}
    assert set(noted.values()) <= said
    assert set(Entry.__slots__) == noted.keys() | derived | written_only
    state_noted = {
        **{name: name for name in ("epoch", "policies", "overrides", "ranked", "settings", "mix")},
        "fleet": "clusters",
        "resource_policies": "units",
        "priority_classes": "classes",
        "quotas": "use",
        "required_by": "required",
        "queue": "line",
        "entries": "others",
        "settling": "mode",
        "victims": "taking",
    }
    indexes = {"by_policy", "candidates", "in_namespace", "on_cluster", "unmatched"}
    # Who is decided on, and when; and what was ordered free, which is in the inventory that a decision sees.
    work = {"active", "counter", "deadlines", "doubts", "evicted", "frozen", "futile", "grown", "log", "moved"}
    work |= {"pending", "thawed_at", "timers", "credits", "recalled"}
    assert set(state_noted.values()) <= said
    assert vars(State()).keys() == state_noted.keys() | indexes | work


def test_a_record_may_name_what_it_does_not_have() -> None:
    """A node class that is none is another decision, not an error; what is said nowhere is named."""
    entry = one()
    state = json.loads(json.dumps(dict(entry.state)))
    classless = state | {"clusters": [cluster | {"classes": []} for cluster in state["clusters"]]}
    assert decide_again(replace(entry, state=classless)).result is Result.DIFFERENT
    for table, what in (("specs", "registration"), ("inventories", "inventory"), ("kinds", "node class")):
        result = decide_again(replace(entry, state=state | {table: []}))
        told = f"the record's state makes no sense: {what} 0 is named, but the record has 0"
        assert (result.result, result.told) == (Result.UNKNOWN, (told,))


@pytest.mark.parametrize("count", [8, 20])
def test_what_clusters_have_alike_is_said_once(count: int) -> None:
    w = Recorder()
    w.clusters(**{name: [gpus_free(*[8, 4, 2][: 1 + i % 3])] for i, name in enumerate(MANY[:count])})
    w.submit(deployment("llm", 3), policy(division=DivisionType.DUPLICATED))
    state = json.loads(json.dumps(dict(w.history[-1].state)))
    assert [len(state[table]) for table in ("specs", "inventories", "kinds", "clusters")] == [1, 1, 1, count]
    # Of few clusters the free blocks are told; of many for how many pods there is room.
    (seen,) = state["clusters"][1]["classes"]
    assert ("rooms" in seen, "running" in seen) == (count > 12, count <= 12)
