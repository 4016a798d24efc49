"""Rule 2: snapshots are whole, and belong to an incarnation and an epoch."""

from __future__ import annotations

from gpufleet.model.cluster import ComponentPods, NodeClass, SnapshotId, WorkloadPods
from gpufleet.model.log import ClassInventory, InventorySummary
from gpufleet.model.staging import Staging

LLM = "t/Deployment/llm"


def snapshot(n: int, epoch: int = 1, incarnation: str = "i1") -> SnapshotId:
    return SnapshotId(incarnation, epoch, n)


def a_class(name: str, at: SnapshotId, nodes: int = 1) -> ClassInventory:
    return ClassInventory("c", at, NodeClass(name, (("pods", 10),), nodes))


def some_pods(at: SnapshotId, bound: int = 1, workload: str = LLM) -> WorkloadPods:
    return WorkloadPods("c", workload, at, (("main", ComponentPods(bound=bound)),))


def closing(at: SnapshotId, classes: tuple[str, ...] = (), pods: tuple[str, ...] = ()) -> InventorySummary:
    return InventorySummary("c", at, observed_at=1.0, classes=classes, pods=pods)


def test_nothing_is_seen_before_the_closing_record() -> None:
    staging = Staging()
    assert staging.take(a_class("a", snapshot(1))) is None
    assert staging.take(some_pods(snapshot(1))) is None
    closed = staging.take(closing(snapshot(1), ("a",), (LLM,)))
    assert closed is not None
    assert [c.name for c in closed.inventory.node_classes] == ["a"]
    assert [p.workload for p in closed.pods] == [LLM]


def test_only_what_changed_is_published_again_and_the_rest_stays() -> None:
    staging = Staging()
    for part in (a_class("a", snapshot(1)), a_class("b", snapshot(1)), some_pods(snapshot(1))):
        staging.take(part)
    staging.take(closing(snapshot(1), ("a", "b"), (LLM,)))
    staging.take(a_class("a", snapshot(2), nodes=5))
    closed = staging.take(closing(snapshot(2), ("a", "b"), (LLM,)))
    assert closed is not None
    assert [(c.name, c.nodes) for c in closed.inventory.node_classes] == [("a", 5), ("b", 1)]
    assert closed.pods == ()


def test_pods_that_appear_or_change_later_are_told() -> None:
    staging = Staging()
    staging.take(closing(snapshot(1)))
    staging.take(some_pods(snapshot(2)))
    appeared = staging.take(closing(snapshot(2), (), (LLM,)))
    staging.take(some_pods(snapshot(3), bound=2))
    changed = staging.take(closing(snapshot(3), (), (LLM,)))
    assert appeared is not None and [p.workload for p in appeared.pods] == [LLM]
    assert changed is not None and changed.pods[0].components[0][1].bound == 2


def test_what_a_snapshot_does_not_name_is_gone() -> None:
    staging = Staging()
    staging.take(a_class("a", snapshot(1)))
    staging.take(some_pods(snapshot(1)))
    staging.take(closing(snapshot(1), ("a",), (LLM,)))
    closed = staging.take(closing(snapshot(2)))
    assert closed is not None
    assert closed.inventory.node_classes == ()
    assert closed.pods_gone == (LLM,)


def test_a_snapshot_with_a_part_that_was_compacted_away_closes_with_the_next() -> None:
    staging = Staging()
    assert staging.take(closing(snapshot(1), ("a",))) is None
    staging.take(a_class("a", snapshot(2)))
    assert staging.take(closing(snapshot(2), ("a",))) is not None


def test_a_lower_epoch_and_an_older_snapshot_are_ignored() -> None:
    staging = Staging()
    staging.take(a_class("a", snapshot(1, epoch=5), nodes=5))
    staging.take(closing(snapshot(1, epoch=5), ("a",)))
    assert staging.take(a_class("a", snapshot(9, epoch=4), nodes=4)) is None
    assert staging.take(closing(snapshot(9, epoch=4), ("a",))) is None
    closed = staging.take(closing(snapshot(2, epoch=5), ("a",)))
    assert closed is not None
    assert closed.inventory.node_classes[0].nodes == 5


def test_a_new_cluster_under_an_old_name_inherits_nothing() -> None:
    staging = Staging()
    staging.take(a_class("a", snapshot(1)))
    staging.take(some_pods(snapshot(1)))
    staging.take(closing(snapshot(1), ("a",), (LLM,)))
    assert staging.take(closing(snapshot(2, incarnation="i2"), ("a",))) is None, "class a was the old cluster's"
    staging.take(a_class("a", snapshot(3, incarnation="i2"), nodes=7))
    closed = staging.take(closing(snapshot(3, incarnation="i2"), ("a",)))
    assert closed is not None
    assert closed.inventory.node_classes[0].nodes == 7
    assert closed.pods_gone == (LLM,)


def test_clusters_do_not_mix() -> None:
    staging = Staging()
    staging.take(a_class("a", snapshot(5)))
    other = InventorySummary("d", snapshot(1))
    closed = staging.take(other)
    assert closed is not None
    assert closed.inventory.node_classes == ()
    staging.gone("c")
    assert staging.take(closing(snapshot(5), ("a",))) is None
