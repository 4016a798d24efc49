"""Deletion: preconditions, finalizers, grace, garbage collection by owners, namespaces, definitions, eviction."""

from __future__ import annotations

from typing import Any

import pytest

from sim.api.crds import install_crds
from sim.api.eviction import evict
from sim.api.resources import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    JOBS,
    NAMESPACES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
)
from sim.api.store import Store
from tests.support.simapi import NOW, config_map, deployment, fails, new_store, owner_reference, pod

Json = dict[str, Any]


def replica_set(owner: Json) -> Json:
    document = deployment("rs", ownerReferences=[owner_reference(owner)])
    return {**document, "kind": "ReplicaSet"}


def tree(store: Store, *, node: str = "n1", block: bool = True) -> tuple[Json, Json, Json]:
    """Deployment, its ReplicaSet, its pod."""
    top = store.create(DEPLOYMENTS, deployment(), now=NOW)
    middle = store.create(REPLICA_SETS, replica_set(top), now=NOW)
    document = pod("p", node=node, ownerReferences=[owner_reference(middle, block=block)])
    return top, middle, store.create(PODS, document, now=NOW)


def test_preconditions() -> None:
    store = new_store()
    made = store.create(CONFIG_MAPS, config_map(), now=NOW)["metadata"]
    place = (CONFIG_MAPS, "default", "cm")
    with fails(409, "Conflict", "the UID in the precondition"):
        store.delete(*place, now=NOW, uid="other")
    with fails(409, "Conflict", "the ResourceVersion in the precondition"):
        store.delete(*place, now=NOW, uid=made["uid"], resource_version="1")
    assert store.delete(*place, now=NOW, uid=made["uid"], resource_version=made["resourceVersion"]).gone
    with fails(404, "NotFound"):
        store.delete(*place, now=NOW)


def test_finalizers_hold_an_object() -> None:
    store = new_store()
    store.create(CONFIG_MAPS, config_map(finalizers=["x.io/a", "x.io/b"]), now=NOW)
    place = (CONFIG_MAPS, "default", "cm")
    deleted = store.delete(*place, now=NOW)
    assert not deleted.gone
    assert deleted.obj["metadata"]["deletionTimestamp"] == "2027-01-15T08:00:00Z"
    version = store.version
    assert not store.delete(*place, now=NOW + 9).gone
    assert store.version == version
    with fails(422, "Invalid", "no new finalizers can be added"):
        store.patch(*place, {"metadata": {"finalizers": ["x.io/a", "x.io/c"]}}, now=NOW)
    store.patch(*place, {"metadata": {"finalizers": ["x.io/b"]}}, now=NOW)
    assert store.find(*place) is not None
    store.patch(*place, {"metadata": {"finalizers": None}}, now=NOW)
    assert store.find(*place) is None
    assert [c.type for c in store.changes_since(CONFIG_MAPS, version)] == ["MODIFIED", "DELETED"]


@pytest.mark.parametrize(
    "node, phase, gone",
    [("n1", "Running", False), ("", "Pending", True), ("n1", "Succeeded", True), ("n1", "Failed", True)],
)
def test_bound_pods_wait_for_their_kubelet(node: str, phase: str, gone: bool) -> None:
    store = new_store()
    store.create(PODS, pod(node=node), now=NOW)
    store.update_status(PODS, "default", "p", {"phase": phase}, now=NOW)
    deleted = store.delete(PODS, "default", "p", now=NOW)
    assert deleted.gone is gone
    if not gone:
        assert deleted.obj["metadata"]["deletionGracePeriodSeconds"] == 30
        assert deleted.obj["metadata"]["deletionTimestamp"] == "2027-01-15T08:00:30Z"
        shorter = store.delete(PODS, "default", "p", now=NOW, grace_period=5)
        assert shorter.obj["metadata"]["deletionGracePeriodSeconds"] == 5
        assert store.delete(PODS, "default", "p", now=NOW, grace_period=0).gone


def test_pods_go_at_once_without_grace() -> None:
    store = new_store(graceful_pods=False)
    store.create(PODS, pod(node="n1"), now=NOW)
    assert store.delete(PODS, "default", "p", now=NOW).gone


def test_background_takes_the_owner_first() -> None:
    store = new_store()
    tree(store)
    assert store.delete(DEPLOYMENTS, "default", "web", now=NOW, propagation="Background").gone
    assert store.find(REPLICA_SETS, "default", "rs") is None
    assert "deletionTimestamp" in store.get(PODS, "default", "p")["metadata"]


def test_foreground_takes_the_owner_last() -> None:
    store = new_store()
    tree(store)
    deleted = store.delete(DEPLOYMENTS, "default", "web", now=NOW, propagation="Foreground")
    assert not deleted.gone
    for resource, name in ((DEPLOYMENTS, "web"), (REPLICA_SETS, "rs")):
        assert store.get(resource, "default", name)["metadata"]["finalizers"] == ["foregroundDeletion"]
    feed = store.feed()
    store.delete(PODS, "default", "p", now=NOW, grace_period=0)
    gone = [change.resource for change in feed.drain() if change.type == "DELETED"]
    assert gone == [PODS, REPLICA_SETS, DEPLOYMENTS]


def test_foreground_waits_only_for_dependents_that_block() -> None:
    store = new_store()
    tree(store, block=False)
    store.delete(DEPLOYMENTS, "default", "web", now=NOW, propagation="Foreground")
    assert store.find(DEPLOYMENTS, "default", "web") is None
    assert "deletionTimestamp" in store.get(PODS, "default", "p")["metadata"]


def test_orphan_leaves_the_dependents() -> None:
    store = new_store()
    tree(store)
    store.delete(DEPLOYMENTS, "default", "web", now=NOW, propagation="Orphan")
    assert store.find(DEPLOYMENTS, "default", "web") is None
    assert "ownerReferences" not in store.get(REPLICA_SETS, "default", "rs")["metadata"]
    assert "deletionTimestamp" not in store.get(PODS, "default", "p")["metadata"]


def test_jobs_orphan_by_default() -> None:
    store = new_store()
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    job = store.create(JOBS, {"metadata": {"name": "j"}, "spec": {"template": template}}, now=NOW)
    store.create(PODS, pod(owner=job), now=NOW)
    store.delete(JOBS, "default", "j", now=NOW)
    assert store.find(JOBS, "default", "j") is None
    assert "ownerReferences" not in store.get(PODS, "default", "p")["metadata"]


class TestFence:
    """An object that names a dead owner is collected: what the dispatcher's fence rests on."""

    def test_a_late_create_is_collected(self) -> None:
        store = new_store()
        fence = store.create(CONFIG_MAPS, config_map("fence"), now=NOW)
        store.delete(CONFIG_MAPS, "default", "fence", now=NOW)
        feed = store.feed()
        store.create(CONFIG_MAPS, config_map("late", owners=[fence]), now=NOW)
        assert [(c.type, c.key[1]) for c in feed.drain()] == [("ADDED", "late"), ("DELETED", "late")]

    def test_a_new_fence_of_the_same_name_does_not_count(self) -> None:
        store = new_store()
        fence = store.create(CONFIG_MAPS, config_map("fence"), now=NOW)
        store.delete(CONFIG_MAPS, "default", "fence", now=NOW)
        store.create(CONFIG_MAPS, config_map("fence"), now=NOW)
        store.create(CONFIG_MAPS, config_map("late", owners=[fence]), now=NOW)
        assert store.find(CONFIG_MAPS, "default", "late") is None

    def test_apply_is_collected_too(self) -> None:
        store = new_store()
        fence = store.create(CONFIG_MAPS, config_map("fence"), now=NOW)
        store.delete(CONFIG_MAPS, "default", "fence", now=NOW)
        config = config_map("late", owners=[fence])
        assert store.apply(CONFIG_MAPS, "default", "late", config, now=NOW, manager="m").created
        assert store.find(CONFIG_MAPS, "default", "late") is None

    def test_an_owner_that_is_left_keeps_the_object(self) -> None:
        store = new_store()
        one, two = (store.create(CONFIG_MAPS, config_map(n), now=NOW) for n in ("one", "two"))
        store.create(CONFIG_MAPS, config_map("child", owners=[one, two]), now=NOW)
        store.delete(CONFIG_MAPS, "default", "one", now=NOW)
        child = store.get(CONFIG_MAPS, "default", "child")
        assert [r["name"] for r in child["metadata"]["ownerReferences"]] == ["two"]
        store.delete(CONFIG_MAPS, "default", "two", now=NOW)
        assert store.find(CONFIG_MAPS, "default", "child") is None

    def test_an_owner_of_an_unserved_kind_proves_nothing(self) -> None:
        store = new_store()
        reference = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "name": "j", "uid": "u"}
        store.create(CONFIG_MAPS, config_map(ownerReferences=[reference]), now=NOW)
        assert store.find(CONFIG_MAPS, "default", "cm") is not None


def test_a_namespace_goes_when_it_is_empty() -> None:
    store = new_store()
    store.create(NAMESPACES, {"metadata": {"name": "team"}}, now=NOW)
    store.create(CONFIG_MAPS, {**config_map(), "metadata": {"name": "cm", "namespace": "team"}}, now=NOW)
    document = pod(node="n1")
    document["metadata"]["namespace"] = "team"
    store.create(PODS, document, now=NOW)
    assert not store.delete(NAMESPACES, "", "team", now=NOW).gone
    assert store.get(NAMESPACES, "", "team")["status"]["phase"] == "Terminating"
    assert not store.list(CONFIG_MAPS, "team")
    with fails(403, "Forbidden", "is being terminated"):
        store.create(CONFIG_MAPS, {"metadata": {"name": "new", "namespace": "team"}}, now=NOW)
    store.delete(PODS, "team", "p", now=NOW, grace_period=0)
    assert store.find(NAMESPACES, "", "team") is None


def test_a_definition_goes_with_its_objects() -> None:
    store = new_store()
    install_crds(store, now=NOW)
    name = "pytorchjobs.kubeflow.org"
    jobs = store.registry.find("kubeflow.org", "v1", "pytorchjobs")
    assert jobs is not None
    store.create(jobs, {"metadata": {"name": "j", "finalizers": ["x.io/a"]}, "spec": {}}, now=NOW)
    assert not store.delete(CUSTOM_RESOURCE_DEFINITIONS, "", name, now=NOW).gone
    assert store.registry.find("kubeflow.org", "v1", "pytorchjobs") is not None
    store.patch(jobs, "default", "j", {"metadata": {"finalizers": None}}, now=NOW)
    assert store.find(CUSTOM_RESOURCE_DEFINITIONS, "", name) is None
    assert store.registry.find("kubeflow.org", "v1", "pytorchjobs") is None
    assert store.registry.find("kubeflow.org", "v1", "tfjobs") is not None


def test_a_budget_refuses_evictions() -> None:
    store = new_store(graceful_pods=False)
    for name in ("p", "q"):
        store.create(PODS, pod(name, node="n", labels={"app": "a"}), now=NOW)
        store.update_status(PODS, "default", name, {"phase": "Running"}, now=NOW)
    budget = {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}}
    store.create(POD_DISRUPTION_BUDGETS, budget, now=NOW)
    status = {"disruptionsAllowed": 1, "desiredHealthy": 1, "currentHealthy": 2}
    store.update_status(POD_DISRUPTION_BUDGETS, "default", "b", status, now=NOW)
    assert evict(store, "default", "p", {}, now=NOW).gone
    with fails(429, "TooManyRequests", "disruption budget") as refused:
        evict(store, "default", "q", {}, now=NOW)
    assert refused.value.details["causes"][0]["reason"] == "DisruptionBudget"


def test_a_wide_tree_is_deleted_in_reasonable_time() -> None:
    """Each dependent that goes must not look at all the others."""
    store = new_store()
    top = store.create(DEPLOYMENTS, deployment(), now=NOW)
    for index in range(2000):
        store.create(PODS, pod(f"p{index}", node="n", owner=top), now=NOW)
    store.delete(DEPLOYMENTS, "default", "web", now=NOW, propagation="Foreground")
    for index in range(2000):
        store.delete(PODS, "default", f"p{index}", now=NOW, grace_period=0)
    assert (store.count(PODS), store.count(DEPLOYMENTS)) == (0, 0)
