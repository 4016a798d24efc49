"""Server-side apply: ownership, conflicts, force, removal, lists merged by key. Each row was held to kube-apiserver."""

from __future__ import annotations

from typing import Any

import pytest

from sim.api.crds import install_crds
from sim.api.errors import ApiError
from sim.api.fieldset import difference, intersection, paths, union
from sim.api.managed import decode
from sim.api.resources import DEPLOYMENTS, NODES, SERVICES, Resource
from sim.api.scale import update_scale
from sim.api.store import Store
from tests.support.simapi import NOW, deployment, fails, new_store

Json = dict[str, Any]
PLACE = (DEPLOYMENTS, "default", "web")


def apply(store: Store, config: Json, manager: str = "m1", **options: Any) -> Json:
    return store.apply(*PLACE, config, now=NOW, manager=manager, **options).obj


def owned(obj: Json, manager: str) -> set[str]:
    """The paths that a manager owns."""
    found: set[str] = set()
    for entry in decode(obj["metadata"]).values():
        if entry.manager == manager:
            found |= set(paths(entry.fields))
    return found


def with_container(**fields: Any) -> Json:
    document = deployment()
    document["spec"]["template"]["spec"]["containers"][0].update(fields)
    return document


def main_container(obj: Json) -> Json:
    container: Json = obj["spec"]["template"]["spec"]["containers"][0]
    return container


def test_create_owns_what_was_applied_and_not_the_defaults() -> None:
    applied = new_store().apply(*PLACE, deployment(labels={"a": "b"}), now=NOW, manager="m1")
    assert applied.created
    main = '.spec.template.spec.containers[name="main"]'
    assert owned(applied.obj, "m1") == {
        ".metadata.labels.a",
        ".spec.replicas",
        ".spec.selector",
        ".spec.template.metadata.labels.app",
        main,
        f"{main}.name",
        f"{main}.image",
    }
    assert applied.obj["spec"]["strategy"]["type"] == "RollingUpdate"


def test_the_same_again_is_no_write() -> None:
    store = new_store()
    first = apply(store, deployment())
    again = store.apply(*PLACE, deployment(), now=NOW + 60, manager="m1")
    assert again.obj is store.get(*PLACE)
    assert again.obj["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert not again.created


def test_a_second_manager_with_the_same_values_shares_them() -> None:
    store = new_store()
    apply(store, deployment())
    shared = apply(store, deployment(), "m2")
    assert owned(shared, "m1") == owned(shared, "m2")


def test_conflict_names_every_field_and_its_owner() -> None:
    store = new_store()
    apply(store, deployment())
    with pytest.raises(ApiError) as refused:
        apply(store, deployment(replicas=3, image="nginx:2"), "m2")
    assert (refused.value.code, refused.value.reason) == (409, "Conflict")
    assert refused.value.details["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "m1"', "field": field}
        for field in (".spec.replicas", '.spec.template.spec.containers[name="main"].image')
    ]
    assert refused.value.message.startswith('Apply failed with 2 conflicts: conflicts with "m1":\n- .spec.replicas')
    assert store.get(*PLACE)["spec"]["replicas"] == 2


def test_force_takes_the_fields_over() -> None:
    store = new_store()
    apply(store, deployment())
    taken = apply(store, deployment(replicas=3), "m2", force=True)
    assert taken["spec"]["replicas"] == 3
    assert ".spec.replicas" in owned(taken, "m2")
    assert ".spec.replicas" not in owned(taken, "m1")
    assert taken["metadata"]["generation"] == 2
    with fails(409, "Conflict", '1 conflict: conflict with "m2": .spec.replicas'):
        apply(store, deployment(), "m1")


@pytest.mark.parametrize(
    "write",
    [
        lambda s: s.patch(*PLACE, {"spec": {"replicas": 7}}, now=NOW, manager="hand"),
        lambda s: s.update(DEPLOYMENTS, {**s.get(*PLACE), **deployment(replicas=7)}, now=NOW, manager="hand"),
        lambda s: update_scale(s, *PLACE, {"spec": {"replicas": 7}}, now=NOW, manager="hand"),
    ],
    ids=["patch", "update", "scale"],
)
def test_an_update_takes_ownership_of_what_it_changes(write: Any) -> None:
    store = new_store()
    apply(store, deployment())
    write(store)
    changed = store.get(*PLACE)
    assert owned(changed, "hand") == {".spec.replicas"}
    assert ".spec.replicas" not in owned(changed, "m1")
    with fails(409, "Conflict", 'conflict with "hand"'):
        apply(store, deployment())
    # Leaving the field out leaves it to its new owner.
    assert apply(store, deployment(replicas=None))["spec"]["replicas"] == 7


def test_fields_no_longer_applied_are_removed() -> None:
    store = new_store()
    apply(store, with_container(env=[{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], command=["x"]))
    left = main_container(apply(store, with_container(env=[{"name": "B", "value": "2"}])))
    assert left["env"] == [{"name": "B", "value": "2"}]
    assert "command" not in left
    assert "env" not in main_container(apply(store, with_container()))


def test_a_removed_field_goes_back_to_its_default() -> None:
    store = new_store()
    document = deployment()
    document["spec"]["strategy"] = {"type": "Recreate"}
    assert apply(store, document)["spec"]["strategy"] == {"type": "Recreate"}
    strategy = apply(store, deployment())["spec"]["strategy"]
    assert strategy["type"] == "RollingUpdate"


def test_a_field_that_another_manager_owns_too_stays() -> None:
    store = new_store()
    apply(store, deployment(labels={"a": "1", "b": "2"}))
    apply(store, deployment(labels={"b": "2"}), "m2")
    left = apply(store, deployment(), "m1")
    assert left["metadata"]["labels"] == {"b": "2"}


def test_what_an_updater_added_stays() -> None:
    store = new_store()
    apply(store, deployment(labels={"a": "1"}))
    patch = {"metadata": {"labels": {"x": "9"}, "annotations": {"n": "m"}}}
    store.patch(*PLACE, patch, now=NOW, manager="hand")
    left = apply(store, deployment())
    assert left["metadata"]["labels"] == {"x": "9"}
    assert left["metadata"]["annotations"] == {"n": "m"}


def test_containers_of_two_managers_merge_by_name() -> None:
    store = new_store()
    apply(store, deployment())
    side = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"template": {"spec": {"containers": [{"name": "side", "image": "s:1"}]}}},
    }
    both = apply(store, side, "m2")
    names = [c["name"] for c in both["spec"]["template"]["spec"]["containers"]]
    assert names == ["main", "side"]
    del side["spec"]
    alone = apply(store, side, "m2")
    assert [c["name"] for c in alone["spec"]["template"]["spec"]["containers"]] == ["main"]
    assert not owned(alone, "m2")


def test_ports_are_told_apart_by_number_and_protocol() -> None:
    store = new_store()
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "dns"},
        "spec": {"ports": [{"name": "u", "port": 53, "protocol": "UDP"}, {"name": "t", "port": 53}]},
    }
    made = store.apply(SERVICES, "default", "dns", service, now=NOW, manager="m1").obj
    assert [(p["port"], p["protocol"]) for p in made["spec"]["ports"]] == [(53, "UDP"), (53, "TCP")]


@pytest.mark.parametrize(
    "field, first, second",
    [
        ("tolerations", [{"key": "a", "operator": "Exists"}], [{"key": "b", "operator": "Exists"}]),
        ("nodeSelector", {"a": "1"}, {"b": "2"}),
    ],
)
def test_atomic_values_are_replaced_as_a_whole(field: str, first: Any, second: Any) -> None:
    store = new_store()

    def config(value: Any) -> Json:
        document = deployment()
        document["spec"]["template"]["spec"][field] = value
        return document

    apply(store, config(first))
    assert apply(store, config(second))["spec"]["template"]["spec"][field] == second
    with fails(409, "Conflict", f".spec.template.spec.{field}"):
        apply(store, config(first), "m2")


def test_taints_of_nodes_are_atomic() -> None:
    store = new_store()

    def node(key: str) -> Json:
        taints = [{"key": key, "effect": "NoSchedule"}]
        return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {"taints": taints}}

    store.apply(NODES, "", "n", node("a"), now=NOW, manager="m1")
    with fails(409, "Conflict", ".spec.taints"):
        store.apply(NODES, "", "n", node("b"), now=NOW, manager="m2")


class TestPreconditions:
    """The fence of the dispatcher: create only, and update only."""

    def test_version_1_creates_only(self) -> None:
        store = new_store()
        assert store.apply(*PLACE, deployment(resourceVersion="1"), now=NOW, manager="m1").created
        with fails(409, "Conflict", "the object has been modified"):
            apply(store, deployment(resourceVersion="1"))

    def test_uid_and_version_update_only(self) -> None:
        store = new_store()
        made = apply(store, deployment())["metadata"]
        current = {"uid": made["uid"], "resourceVersion": made["resourceVersion"]}
        apply(store, deployment(replicas=3, **current))
        with fails(409, "Conflict", "the object has been modified"):
            apply(store, deployment(replicas=4, **current))
        store.delete(*PLACE, now=NOW)
        with fails(409, "Conflict", "no existing object was found"):
            apply(store, deployment(replicas=4, **current))
        assert store.find(*PLACE) is None

    def test_a_version_alone_creates_again(self) -> None:
        store = new_store()
        version = apply(store, deployment())["metadata"]["resourceVersion"]
        store.delete(*PLACE, now=NOW)
        assert store.apply(*PLACE, deployment(resourceVersion=version), now=NOW, manager="m1").created

    def test_another_uid_is_invalid(self) -> None:
        store = new_store()
        apply(store, deployment())
        with fails(422, "Invalid", "metadata.uid"):
            apply(store, deployment(uid="11111111-1111-4111-8111-111111111111"))


def test_status_is_not_applied_through_the_object() -> None:
    store = new_store()
    made = apply(store, {**deployment(), "status": {"replicas": 5}})
    assert made["status"] == {}
    assert not any(path.startswith(".status") for path in owned(made, "m1"))
    config = {**deployment(replicas=77), "status": {"replicas": 5}}
    status = store.apply(*PLACE, config, now=NOW, manager="op", subresource="status").obj
    assert (status["spec"]["replicas"], status["status"]) == (2, {"replicas": 5})
    assert owned(status, "op") == {".status.replicas"}


def test_first_apply_to_an_object_without_owners() -> None:
    store = new_store()
    store.create(DEPLOYMENTS, deployment(), now=NOW)
    with fails(409, "Conflict", "before-first-apply"):
        apply(store, deployment(replicas=3))
    shared = apply(store, deployment())
    assert ".spec.replicas" in owned(shared, "before-first-apply")


@pytest.mark.parametrize(
    "change, code, text",
    [
        ({"metadata": {"name": "other"}}, 400, "does not match the name on the URL"),
        ({"metadata": {}}, 400, "name must be provided"),
        ({"kind": "Pod"}, 400, "invalid object type"),
        ({"metadata": {"name": "web", "managedFields": []}}, 400, "managedFields must be nil"),
        ({"spec": {"replica": 2}}, 500, ".spec.replica: field not declared in schema"),
        ({"metadata": {"name": "web", "resourceVersion": "abc"}}, 422, "metadata.resourceVersion"),
    ],
)
def test_configurations_that_are_refused(change: Json, code: int, text: str) -> None:
    store = new_store()
    apply(store, deployment())
    with fails(code, match=text):
        apply(store, {**deployment(), **change})


def test_repeated_keys_are_refused() -> None:
    env = [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
    with fails(500, match=r'env: duplicate entries for key \[name="A"\]'):
        apply(new_store(), with_container(env=env))


class TestCustomResources:
    """Without a schema below spec: maps merge by key, lists are atomic."""

    @pytest.fixture
    def store(self) -> Store:
        store = new_store()
        install_crds(store, now=NOW)
        return store

    @pytest.fixture
    def jobs(self, store: Store) -> Resource:
        found = store.registry.find("kubeflow.org", "v1", "pytorchjobs")
        assert found is not None
        return found

    @staticmethod
    def job(**spec: Any) -> Json:
        return {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": "j"}, "spec": spec}

    def test_lists_are_atomic_and_maps_merge(self, store: Store, jobs: Resource) -> None:
        place = (jobs, "default", "j")
        store.apply(*place, self.job(a={"x": 1}, items=[{"name": "one"}]), now=NOW, manager="m1")
        merged = store.apply(*place, self.job(a={"y": 2}), now=NOW, manager="m2").obj
        assert merged["spec"] == {"a": {"x": 1, "y": 2}, "items": [{"name": "one"}]}
        with fails(409, "Conflict", ".spec.items"):
            store.apply(*place, self.job(items=[{"name": "two"}]), now=NOW, manager="m2")

    def test_an_object_that_loses_its_last_field_becomes_null(self, store: Store, jobs: Resource) -> None:
        store.apply(jobs, "default", "j", self.job(a={"x": 1}), now=NOW, manager="m1")
        with fails(422, "Invalid", "spec in body must be of type object"):
            store.apply(jobs, "default", "j", self.job(), now=NOW, manager="m1")

    def test_update_needs_a_version(self, store: Store, jobs: Resource) -> None:
        store.create(jobs, self.job(), now=NOW)
        with fails(422, "Invalid", "must be specified for an update"):
            store.update(jobs, self.job(a=1), now=NOW)


A: Json = {"f:a": {}, "f:b": {".": {}, "f:c": {}}, "f:d": {"f:e": {}}}
B: Json = {"f:b": {"f:c": {}, "f:x": {}}, "f:d": {}}


def test_field_sets() -> None:
    assert union(A, B) == {"f:a": {}, "f:b": {".": {}, "f:c": {}, "f:x": {}}, "f:d": {".": {}, "f:e": {}}}
    assert intersection(A, B) == {"f:b": {"f:c": {}}}
    assert difference(A, B) == {"f:a": {}, "f:b": {}, "f:d": {"f:e": {}}}
    assert difference(B, A) == {"f:b": {"f:x": {}}, "f:d": {}}
    assert list(paths(A)) == [".a", ".b", ".b.c", ".d.e"]
    assert list(paths({'k:{"name":"x"}': {}, 'v:"y"': {}})) == ['[name="x"]', '[="y"]']
