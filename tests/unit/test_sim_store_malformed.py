"""Whatever a client sends, the store answers with an object or an ApiError, and stays whole."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.api.crds import crd_documents
from sim.api.errors import ApiError
from sim.api.resources import BUILTIN, CONFIG_MAPS, SELF_SUBJECT_ACCESS_REVIEWS, Registry
from sim.api.store import Store
from tests.support.simapi import NOW, config_map, new_store

Json = dict[str, Any]

TEMPLATE: Json = {
    "metadata": {"labels": {"app": "a"}},
    "spec": {
        "containers": [
            {
                "name": "c",
                "image": "i",
                "ports": [{"containerPort": 80}],
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "resources": {"limits": {"nvidia.com/gpu": 1}, "requests": {"cpu": "1"}},
                "livenessProbe": {"httpGet": {"port": 80}},
            }
        ],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}],
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "nodeSelector": {"a": "b"},
    },
}
OWNED = {
    "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u"}],
    "finalizers": ["a.b/c"],
}
SELECTOR = {"matchLabels": {"app": "a"}, "matchExpressions": [{"key": "app", "operator": "In", "values": ["a"]}]}


def named(api_version: str, kind: str, **fields: Any) -> Json:
    metadata = {"name": "x", "labels": {"a": "b"}, "annotations": {"a": "b"}, **OWNED}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}


FINISHING = {**TEMPLATE, "spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}
WORKLOAD = {"replicas": 1, "selector": SELECTOR, "template": TEMPLATE, "strategy": {"rollingUpdate": {}}}
DOCUMENTS: list[Json] = [
    named("v1", "Pod", spec=TEMPLATE["spec"], status={"conditions": [{"type": "Ready"}]}),
    named("apps/v1", "Deployment", spec=WORKLOAD),
    named("apps/v1", "StatefulSet", spec={**WORKLOAD, "updateStrategy": {"rollingUpdate": {}}}),
    named("apps/v1", "DaemonSet", spec=WORKLOAD),
    named("batch/v1", "Job", spec={"template": FINISHING, "completions": 1}),
    named("batch/v1", "CronJob", spec={"schedule": "* * * * *", "jobTemplate": {"spec": {"template": FINISHING}}}),
    named("v1", "Node", spec={"taints": [{"key": "a", "effect": "NoSchedule"}]}, status={"capacity": {"cpu": 1}}),
    named("v1", "Service", spec={"ports": [{"port": 1}], "selector": {"a": "b"}}),
    named("v1", "ConfigMap", data={"a": "b"}),
    named("v1", "Secret", stringData={"a": "b"}, data={"c": "ZA=="}),
    named("v1", "PersistentVolumeClaim", spec={"resources": {"requests": {"storage": "1Gi"}}}),
    named("v1", "ResourceQuota", spec={"hard": {"cpu": 1}}),
    named("v1", "Namespace", spec={"finalizers": ["kubernetes"]}),
    named("v1", "Event", involvedObject={"kind": "Pod", "name": "x"}),
    named("scheduling.k8s.io/v1", "PriorityClass", value=1),
    named("policy/v1", "PodDisruptionBudget", spec={"minAvailable": 1, "selector": SELECTOR}),
    crd_documents()[0],
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a document, its root left out."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, item in items:
        found += [(*path, key), *places(item, (*path, key))]
    return found


def spoilt(document: Json, path: tuple[Any, ...], value: Any) -> Json:
    result = copy.deepcopy(document)
    parent: Any = result
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return result


NONSENSE: list[Any] = [None, True, -1, 1.5, "", "x", "-", "a" * 300, [], [1], ["x"], [[]], [{}], {}, {"x": 1}, {"": {}}]


@pytest.mark.parametrize("document", DOCUMENTS, ids=[d["kind"] for d in DOCUMENTS])
def test_each_value_replaced_by_nonsense(document: Json) -> None:
    resource = Registry().by_kind(document["apiVersion"], document["kind"])
    assert resource is not None
    new_store().create(resource, document, now=NOW, manager="m")
    store, codes = new_store(), set()
    for path in places(document):
        for value in NONSENSE:
            try:
                store.create(resource, spoilt(document, path, value), now=NOW, manager="m")
            except ApiError as error:
                codes.add(error.status()["code"])
                continue
            check_whole(store)
            store = new_store()
    assert codes <= {400, 403, 404, 422, 500}
    assert {400, 422} & codes


def check_whole(store: Store) -> None:
    """Indexes and objects agree."""
    for resource in BUILTIN:
        if resource == SELF_SUBJECT_ACCESS_REVIEWS:
            continue
        for obj in store.list(resource):
            metadata = obj["metadata"]
            assert store.get(resource, metadata.get("namespace", ""), metadata["name"]) == obj
            found = store.by_uid(metadata["uid"])
            assert found is not None
            assert found[1]["metadata"] == metadata


@given(st.integers(0, len(DOCUMENTS) - 1), st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_patches_and_applies_of_nonsense(index: int, data: st.DataObject) -> None:
    document = DOCUMENTS[index]
    store = new_store()
    resource = store.registry.by_kind(document["apiVersion"], document["kind"])
    assert resource is not None
    metadata = {k: v for k, v in document["metadata"].items() if k not in OWNED}
    store.create(resource, {**document, "metadata": metadata}, now=NOW, manager="m")
    place = (resource, "default" if resource.namespaced else "", document["metadata"]["name"])
    codes: list[int] = []
    for _ in range(3):
        path = data.draw(st.sampled_from(places(document)))
        changed = spoilt(document, path, data.draw(st.sampled_from(NONSENSE)))
        how = data.draw(st.sampled_from(["merge", "strategic", "apply", "status"]))
        try:
            if how == "apply":
                store.apply(*place, changed, now=NOW, manager="n", force=True)
            elif how == "status":
                store.patch(*place, changed, now=NOW, subresource="status", manager="n")
            else:
                store.patch(*place, changed, now=NOW, type=how, manager="n")  # type: ignore[arg-type]
        except ApiError as error:
            codes.append(error.code)
        check_whole(store)
    assert set(codes) <= {400, 403, 404, 409, 415, 422, 500}


@pytest.mark.parametrize("body", [None, 1, "x", [], [{}], True])
def test_bodies_that_are_no_objects(body: Any) -> None:
    store = new_store()
    store.create(CONFIG_MAPS, config_map(), now=NOW)
    for write in (
        lambda: store.create(CONFIG_MAPS, body, now=NOW),
        lambda: store.update(CONFIG_MAPS, body, now=NOW),
        lambda: store.apply(CONFIG_MAPS, "default", "cm", body, now=NOW, manager="m"),
        lambda: store.patch(CONFIG_MAPS, "default", "cm", body, now=NOW),
        lambda: store.patch(CONFIG_MAPS, "default", "cm", body, now=NOW, type="strategic"),
    ):
        with pytest.raises(ApiError) as refused:
            write()
        assert refused.value.code == 400
