"""Snapshots of a cluster: whole at first, then what changed; heartbeats; silence."""

from __future__ import annotations

from gpufleet.model.cluster import Health, SnapshotId
from gpufleet.model.staging import Staging
from services.inventory.core.objects import Node, Pod
from services.inventory.core.snapshot import ClusterInventory

NODE = Node("n1", (("gpufleet.io/node-class", "a100"),), (), (("nvidia.com/gpu", 8), ("pods", 10)), usable=True)
POD = Pod("u1", "test", "p", "n1", (("pods", 1),), "Running", 0.0, workload="test/Deployment/x", component="main")


def inventory(**more: object) -> ClusterInventory:
    found = ClusterInventory("c", epoch=7, incarnation="i1", **more)  # type: ignore[arg-type]
    found.began(0.0)
    return found


def ready() -> ClusterInventory:
    found = inventory()
    found.cache.put_node(NODE)
    found.cache.put_pod(POD)
    found.contact(0.0)
    found.whole = True
    return found


def test_nothing_is_published_before_every_list_was_read() -> None:
    found = inventory()
    found.cache.put_node(NODE)
    found.contact(0.0)
    assert not found.due(0.0)
    found.whole = True
    assert found.due(0.0)


def test_the_first_snapshot_is_whole_and_later_ones_hold_what_changed() -> None:
    found = ready()
    first = found.publish(1.0)
    assert [c.node_class.name for c in first.classes] == ["a100"]
    assert [p.workload for p in first.pods] == ["test/Deployment/x"]
    assert first.closing.snapshot == SnapshotId("i1", 7, 1)
    assert not found.due(1.0)
    found.cache.remove_pod("u1")
    assert found.due(1.0)
    second = found.publish(1.1)
    assert [c.node_class.name for c in second.classes] == ["a100"]
    assert (second.pods, second.removed_pods) == ((), ("test/Deployment/x",))
    assert second.closing.snapshot.n == 2


def test_a_new_owner_tombstones_what_it_no_longer_sees() -> None:
    found = ready()
    found.adopt(["a100", "gone"], ["test/Deployment/old", "test/Deployment/x"], "i1")
    first = found.publish(1.0)
    assert first.removed_classes == ("gone",)
    assert first.removed_pods == ("test/Deployment/old",)


def test_a_heartbeat_needs_contact_since_the_last_one() -> None:
    found = ready()
    found.publish(1.0)
    assert found.next_due(1.0) == 11.0
    assert not found.due(11.0), "nothing was heard since the last publication"
    found.contact(5.0)
    assert not found.due(10.9)
    assert found.due(11.0)
    beat = found.publish(11.0)
    assert beat.classes == () and beat.pods == ()
    assert beat.closing.observed_at == 5.0


def test_a_silent_cluster_is_said_to_be_unreachable_once_and_ready_again_when_it_answers() -> None:
    found = ready()
    found.publish(1.0)
    assert not found.due(299.0)
    assert found.due(300.0)
    said = found.publish(300.0)
    assert said.closing.health is Health.UNREACHABLE
    assert "300 s" in said.closing.message
    assert said.removed_classes == () and said.removed_pods == (), "what is not seen is not gone"
    assert not found.due(400.0)
    found.contact(401.0)
    assert found.due(401.0)
    assert found.publish(401.0).closing.health is Health.READY


def test_a_cluster_that_never_answered_keeps_what_an_earlier_owner_published() -> None:
    readers = Staging()
    for part in ready().publish(1.0).parts:
        readers.take(part)
    found = ClusterInventory("c", epoch=8)
    found.began(0.0)
    found.adopt(["a100"], ["test/Deployment/x"], "i1")
    assert not found.due(299.0)
    assert found.due(300.0)
    said = found.publish(300.0)
    assert said.removed_classes == () and said.removed_pods == ()
    assert said.parts == (said.closing,)
    assert said.closing.observed_at == 0.0, "nobody has seen it since"
    closed = readers.take(said.closing)
    assert closed is not None
    assert closed.inventory.health is Health.UNREACHABLE
    assert [c.name for c in closed.inventory.node_classes] == ["a100"]
    assert (closed.pods, closed.pods_gone) == ((), ())


def test_another_cluster_that_answers_after_a_takeover_inherits_nothing() -> None:
    found = ClusterInventory("c", epoch=8)
    found.adopt(["a100"], ["test/Deployment/x"], "i1")
    found.meet("i2")
    found.contact(0.0)
    found.whole = True
    said = found.publish(1.0)
    assert (said.removed_classes, said.removed_pods) == (("a100",), ("test/Deployment/x",))
    assert said.closing.snapshot == SnapshotId("i2", 8, 1)


def test_parts_are_in_the_order_of_writing_and_the_last_one_names_them() -> None:
    said = ready().publish(1.0)
    assert [type(part).__name__ for part in said.parts] == ["ClassInventory", "WorkloadPods", "InventorySummary"]
    assert (said.closing.classes, said.closing.pods) == (("a100",), ("test/Deployment/x",))
