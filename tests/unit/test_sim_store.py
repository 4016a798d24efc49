"""The object store: identity, versions, lists, changes."""

from __future__ import annotations

import pytest

from sim.api.changelog import Change
from sim.api.resources import CONFIG_MAPS, DEPLOYMENTS, NODES, PODS, version_priority
from sim.api.selectors import FieldSelector, LabelSelector
from sim.api.store import Store
from tests.support.simapi import NOW, config_map, deployment, fails, new_store, owner_reference, pod


def names(objects: list[dict[str, object]]) -> list[str]:
    return [obj["metadata"]["name"] for obj in objects]  # type: ignore[index]


def test_same_seed_same_writes_same_objects() -> None:
    def run(seed: int) -> list[object]:
        store = new_store(seed=seed)
        store.create(PODS, pod("a"), now=NOW)
        store.create(PODS, {**pod(), "metadata": {"generateName": "g-"}}, now=NOW)
        return [obj["metadata"] for obj in store.list(PODS)]

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_create_fills_system_fields_and_defaults() -> None:
    obj = new_store().create(DEPLOYMENTS, deployment(replicas=None, uid="mine"), now=NOW)
    assert obj["metadata"]["uid"] != "mine"
    assert obj["metadata"]["generation"] == 1
    assert obj["metadata"]["namespace"] == "default"
    assert obj["metadata"]["creationTimestamp"] == "2027-01-15T08:00:00Z"
    assert obj["spec"]["replicas"] == 1
    assert obj["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": "25%", "maxSurge": "25%"}
    assert obj["spec"]["template"]["spec"]["restartPolicy"] == "Always"


def test_pod_requests_default_to_limits_and_templates_do_not() -> None:
    store = new_store()
    resources = {"limits": {"nvidia.com/gpu": 8, "memory": "1024Mi"}, "requests": {"memory": "0.5Gi"}}
    document = pod()
    document["spec"]["containers"][0]["resources"] = resources
    made = store.create(PODS, document, now=NOW)["spec"]["containers"][0]["resources"]
    assert made["requests"] == {"memory": "512Mi", "nvidia.com/gpu": "8"}
    template = deployment()
    template["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "2"}}
    made = store.create(DEPLOYMENTS, template, now=NOW)["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert made == {"limits": {"cpu": "2"}}


def test_generation_counts_spec_changes_only() -> None:
    store = new_store()
    store.create(DEPLOYMENTS, deployment(), now=NOW)
    place = (DEPLOYMENTS, "default", "web")
    for patch, generation in (
        ({"metadata": {"labels": {"a": "b"}}}, 1),
        ({"spec": {"replicas": 5}}, 2),
        ({"spec": {"replicas": 5}}, 2),
        ({"status": {"replicas": 9}}, 2),
    ):
        assert store.patch(*place, patch, now=NOW)["metadata"]["generation"] == generation
    status = store.update_status(*place, {"replicas": 9}, now=NOW)
    assert (status["metadata"]["generation"], status["status"]) == (2, {"replicas": 9})


def test_write_without_difference_is_no_write() -> None:
    store = new_store()
    made = store.create(DEPLOYMENTS, deployment(), now=NOW)
    version, feed = store.version, store.feed()
    store.update(DEPLOYMENTS, made, now=NOW + 5)
    store.patch(DEPLOYMENTS, "default", "web", {"spec": {"replicas": 2}}, now=NOW + 5)
    assert store.version == version
    assert not feed.drain()


def test_status_and_spec_are_written_apart() -> None:
    store = new_store()
    store.create(DEPLOYMENTS, deployment(), now=NOW)
    place = (DEPLOYMENTS, "default", "web")
    changed = store.patch(*place, {"spec": {"replicas": 7}, "status": {"replicas": 7}}, now=NOW)
    assert (changed["spec"]["replicas"], changed["status"]) == (7, {})
    patch = {"spec": {"replicas": 1}, "status": {"replicas": 3}, "metadata": {"labels": {"a": "b"}}}
    changed = store.patch(*place, patch, now=NOW, subresource="status")
    assert (changed["spec"]["replicas"], changed["status"]) == (7, {"replicas": 3})
    assert "labels" not in changed["metadata"]


def test_update_wants_the_current_version() -> None:
    store = new_store()
    made = store.create(DEPLOYMENTS, deployment(), now=NOW)
    store.patch(DEPLOYMENTS, "default", "web", {"spec": {"replicas": 5}}, now=NOW)
    with fails(409, "Conflict", "the object has been modified"):
        store.update(DEPLOYMENTS, made, now=NOW)
    with fails(409, "Conflict", "UID in precondition"):
        store.update(DEPLOYMENTS, deployment(uid="other"), now=NOW)
    with fails(404, "NotFound", 'deployments.apps "gone" not found'):
        store.update(DEPLOYMENTS, deployment("gone"), now=NOW)


def test_create_refuses_what_exists_and_what_has_no_namespace() -> None:
    store = new_store()
    store.create(CONFIG_MAPS, config_map(), now=NOW)
    with fails(409, "AlreadyExists"):
        store.create(CONFIG_MAPS, config_map(), now=NOW)
    with fails(404, "NotFound", 'namespaces "nope" not found'):
        store.create(CONFIG_MAPS, config_map(namespace="nope"), now=NOW)
    with fails(500, match="resourceVersion should not be set"):
        store.create(CONFIG_MAPS, config_map("b", resourceVersion="1"), now=NOW)


def test_dry_run_changes_nothing() -> None:
    store = new_store()
    version = store.version
    assert store.create(DEPLOYMENTS, deployment(), now=NOW, dry_run=True)["spec"]["replicas"] == 2
    assert store.find(DEPLOYMENTS, "default", "web") is None
    store.create(DEPLOYMENTS, deployment(), now=NOW)
    patched = store.patch(DEPLOYMENTS, "default", "web", {"spec": {"replicas": 9}}, now=NOW, dry_run=True)
    assert patched["spec"]["replicas"] == 9
    assert store.get(DEPLOYMENTS, "default", "web")["spec"]["replicas"] == 2
    assert store.version == version + 1


def test_bind_once_and_indexes() -> None:
    store = new_store()
    owner = store.create(DEPLOYMENTS, deployment(), now=NOW)
    store.create(PODS, pod("a", owner=owner), now=NOW)
    store.create(PODS, pod("b"), now=NOW)
    assert names(store.pods_on_node("")) == ["a", "b"]
    bound = store.bind("default", "a", "n1", now=NOW)
    assert bound["spec"]["nodeName"] == "n1"
    assert bound["status"]["conditions"][0]["type"] == "PodScheduled"
    with fails(409, "Conflict", "already assigned"):
        store.bind("default", "a", "n2", now=NOW)
    assert names(store.pods_on_node("n1")) == ["a"]
    assert names(store.list(PODS, fields=FieldSelector.parse("spec.nodeName=n1"))) == ["a"]
    assert names(store.list(PODS, fields=FieldSelector.parse("spec.nodeName!=n1"))) == ["b"]
    assert names(store.owned_by(owner["metadata"]["uid"])) == ["a"]
    assert names(store.owned_by(owner["metadata"]["uid"], PODS)) == ["a"]
    assert not store.owned_by(owner["metadata"]["uid"], CONFIG_MAPS)
    found = store.by_uid(bound["metadata"]["uid"])
    assert found is not None and found[1] is bound
    store.delete(PODS, "default", "a", now=NOW, grace_period=0)
    assert not store.pods_on_node("n1")
    assert store.by_uid(bound["metadata"]["uid"]) is None


@pytest.mark.parametrize(
    "selector, expected",
    [
        ("app=a", ["one"]),
        ("app==a", ["one"]),
        ("app!=a", ["three", "two"]),
        ("app in (a, b)", ["one", "two"]),
        ("app notin (a),tier", ["two"]),
        ("!app", ["three"]),
        ("size>5", ["two"]),
        ("size<5", ["one"]),
        ("app=a,app=b", []),
        ("", ["one", "three", "two"]),
    ],
)
def test_label_selectors(selector: str, expected: list[str]) -> None:
    store = new_store()
    store.create(CONFIG_MAPS, config_map("one", labels={"app": "a", "size": "3"}), now=NOW)
    store.create(CONFIG_MAPS, config_map("two", labels={"app": "b", "size": "7", "tier": "x"}), now=NOW)
    store.create(CONFIG_MAPS, config_map("three"), now=NOW)
    assert names(store.list(CONFIG_MAPS, labels=LabelSelector.parse(selector))) == expected


@pytest.mark.parametrize("selector", ["a in b", "=b", "a==b=c", "a b", "size>x"])
def test_label_selectors_that_cannot_be_read(selector: str) -> None:
    with fails(400, "BadRequest"):
        LabelSelector.parse(selector)


def test_pages_show_one_version_of_the_world() -> None:
    store = new_store()
    for index in range(5):
        store.create(CONFIG_MAPS, config_map(f"c{index}"), now=NOW)
    first = store.page(CONFIG_MAPS, limit=2)
    assert (names(first.items), first.next, first.remaining) == (["c0", "c1"], ("default", "c1"), 3)
    store.delete(CONFIG_MAPS, "default", "c2", now=NOW)
    store.patch(CONFIG_MAPS, "default", "c3", {"data": {"a": "b"}}, now=NOW)
    store.create(CONFIG_MAPS, config_map("c35"), now=NOW)
    rest = store.page(CONFIG_MAPS, limit=9, after=first.next, version=first.version)
    assert names(rest.items) == ["c2", "c3", "c4"]
    assert "data" not in rest.items[1]
    assert rest.version == first.version
    store.compact()
    with fails(410, "Expired"):
        store.page(CONFIG_MAPS, after=first.next, version=first.version)
    with fails(504, "Timeout"):
        store.page(CONFIG_MAPS, version=store.version + 1)


def test_changes_resume_until_they_are_forgotten() -> None:
    store = new_store(log_capacity=3)
    start = store.version
    for index in range(3):
        store.create(CONFIG_MAPS, config_map(f"c{index}"), now=NOW)
    store.delete(CONFIG_MAPS, "default", "c0", now=NOW)
    changes = store.changes_since(CONFIG_MAPS, start)
    assert [(c.type, c.key[1]) for c in changes] == [
        ("ADDED", "c0"),
        ("ADDED", "c1"),
        ("ADDED", "c2"),
        ("DELETED", "c0"),
    ]
    assert [c.version for c in changes] == sorted({c.version for c in changes})
    assert changes[-1].obj["metadata"]["resourceVersion"] == str(store.version)
    assert store.changes_since(CONFIG_MAPS, changes[1].version) == changes[2:]
    for index in range(3, 10):
        store.create(CONFIG_MAPS, config_map(f"c{index}"), now=NOW)
    with fails(410, "Expired", "too old resource version"):
        store.changes_since(CONFIG_MAPS, start)
    assert len(store.changes_since(CONFIG_MAPS, store.version - 3)) == 3


def test_subscribers_see_one_order_even_if_they_write() -> None:
    store = new_store()
    seen: list[list[int]] = [[], []]

    def writes(change: Change) -> None:
        seen[0].append(change.version)
        if change.resource == CONFIG_MAPS and change.type == "ADDED" and change.key[1] == "first":
            store.create(CONFIG_MAPS, config_map("second"), now=NOW)

    store.subscribe(writes)
    store.subscribe(lambda change: seen[1].append(change.version))
    store.create(CONFIG_MAPS, config_map("first"), now=NOW)
    assert seen[0] == seen[1] == [store.version - 1, store.version]


def test_stored_objects_do_not_alias_what_clients_hold() -> None:
    store = new_store()
    document = deployment()
    made = store.create(DEPLOYMENTS, document, now=NOW)
    document["spec"]["replicas"] = 99
    document["spec"]["template"]["spec"]["containers"].clear()
    assert store.get(DEPLOYMENTS, "default", "web") == made
    old = store.get(DEPLOYMENTS, "default", "web")
    store.patch(DEPLOYMENTS, "default", "web", {"spec": {"replicas": 4}}, now=NOW)
    assert old["spec"]["replicas"] == 2


def test_incarnation_belongs_to_one_life_of_a_cluster() -> None:
    assert new_store(seed=1).incarnation == new_store(seed=1).incarnation
    assert new_store(seed=1).incarnation != new_store(seed=2).incarnation


def test_priority_of_pods_comes_from_their_class() -> None:
    store = new_store()
    from sim.api.resources import PRIORITY_CLASSES

    store.create(PRIORITY_CLASSES, {"metadata": {"name": "high"}, "value": 1000}, now=NOW)
    document = pod("a")
    document["spec"]["priorityClassName"] = "high"
    assert store.create(PODS, document, now=NOW)["spec"]["priority"] == 1000
    assert store.create(PODS, pod("b"), now=NOW)["spec"]["priority"] == 0
    document = pod("c")
    document["spec"]["priorityClassName"] = "nope"
    with fails(403, "Forbidden", "no PriorityClass with name nope was found"):
        store.create(PODS, document, now=NOW)


def test_version_priority_is_upstreams() -> None:
    versions = ["v1alpha1", "v1", "v2beta1", "v10", "foo", "v2", "v1beta2", "v1beta1"]
    ordered = ["v10", "v2", "v1", "v2beta1", "v1beta2", "v1beta1", "v1alpha1", "foo"]
    assert sorted(versions, key=version_priority) == ordered


def test_many_pods_are_cheap_to_find() -> None:
    """Indexes, not scans: reading one node's pods does not touch the others."""
    store = new_store()
    store.create(NODES, {"metadata": {"name": "n0"}}, now=NOW)
    for index in range(300):
        store.create(PODS, pod(f"p{index:03}", node=f"n{index % 30}"), now=NOW)
    assert len(store.pods_on_node("n7")) == 10
    assert len(store.list(PODS, fields=FieldSelector.parse("spec.nodeName=n7"))) == 10
    owner = Store("other", now=NOW).create(CONFIG_MAPS, config_map(), now=NOW)
    assert not store.owned_by(owner_reference(owner)["uid"])
