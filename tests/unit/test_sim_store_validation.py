"""Objects that the API refuses, and the canonical form of quantities."""

from __future__ import annotations

from typing import Any

import pytest

from sim.api.errors import ApiError
from sim.api.patches import merge_patch
from sim.api.quantity import amount, canonical
from sim.api.resources import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    JOBS,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    STATEFUL_SETS,
    Resource,
)
from sim.api.structural import check, complete
from tests.support.simapi import NOW, deployment, fails, new_store, pod

Json = dict[str, Any]

TEMPLATE = "spec.template.spec"


def container(**fields: Any) -> Json:
    return {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "i", **fields}]}}}}


@pytest.mark.parametrize(
    "change, field, text",
    [
        ({"spec": {"replicas": -1}}, "spec.replicas", "must be greater than or equal to 0"),
        ({"metadata": {"name": "Web"}}, "metadata.name", "RFC 1123 subdomain"),
        ({"metadata": {"name": None}}, "metadata.name", "name or generateName is required"),
        ({"metadata": {"labels": {"a": "-"}}}, "metadata.labels", "a valid label"),
        ({"metadata": {"labels": {"a b": "c"}}}, "metadata.labels", "name part"),
        ({"spec": {"selector": None}}, "spec.selector", "Required value"),
        (
            {"spec": {"template": {"metadata": {"labels": {"app": "other"}}}}},
            "spec.template.metadata.labels",
            "`selector` does not match template `labels`",
        ),
        ({"spec": {"template": {"spec": {"containers": []}}}}, f"{TEMPLATE}.containers", "Required value"),
        ({"spec": {"template": {"spec": {"restartPolicy": "Never"}}}}, f"{TEMPLATE}.restartPolicy", "Unsupported"),
        (container(image=None), f"{TEMPLATE}.containers[0].image", "Required value"),
        (container(name="A"), f"{TEMPLATE}.containers[0].name", "RFC 1123 label"),
        (
            {
                "spec": {
                    "template": {"spec": {"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]}}
                }
            },
            f"{TEMPLATE}.containers[1].name",
            'Duplicate value: "a"',
        ),
        (
            container(resources={"requests": {"nvidia.com/gpu": 1}}),
            f"{TEMPLATE}.containers[0].resources.limits",
            "Limit must be set for non overcommitable resources",
        ),
        (
            container(resources={"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 2}}),
            f"{TEMPLATE}.containers[0].resources.requests",
            "must be equal to nvidia.com/gpu limit of 2",
        ),
        (
            container(resources={"limits": {"nvidia.com/gpu": "500m"}}),
            f"{TEMPLATE}.containers[0].resources.limits[nvidia.com/gpu]",
            "must be an integer",
        ),
        (
            container(resources={"requests": {"cpu": "3"}, "limits": {"cpu": "2"}}),
            f"{TEMPLATE}.containers[0].resources.requests",
            "must be less than or equal to cpu limit of 2",
        ),
        (
            {"spec": {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}},
            "spec.strategy.rollingUpdate",
            "may not be specified",
        ),
    ],
)
def test_invalid_deployments(change: Json, field: str, text: str) -> None:
    with pytest.raises(ApiError) as refused:
        new_store().create(DEPLOYMENTS, merge_patch(deployment(), change), now=NOW)
    assert (refused.value.code, refused.value.reason) == (422, "Invalid")
    assert field in [cause["field"] for cause in refused.value.details["causes"]]
    assert text in refused.value.message


@pytest.mark.parametrize(
    "change, text",
    [
        ({"spec": {"replicas": "3"}}, "cannot unmarshal string into Go struct field spec.replicas of type int32"),
        (container(resources={"limits": {"cpu": "8Gx"}}), "quantities must match the regular expression"),
        ({"metadata": {"labels": {"a": 1}}}, "cannot unmarshal number"),
        ({"spec": "x"}, "cannot unmarshal string"),
        ({"spec": {"template": {"spec": {"containers": "x"}}}}, "cannot unmarshal string"),
        ({"spec": {"template": {"spec": {"nodeSelector": {"a": 1}}}}}, "cannot unmarshal number"),
        ({"kind": "Pod"}, "does not match the expected API version"),
        ({"apiVersion": "apps/v2"}, "does not match the expected API version"),
        ({"metadata": "x"}, "cannot unmarshal string"),
    ],
)
def test_malformed_deployments(change: Json, text: str) -> None:
    with fails(400, "BadRequest", text):
        new_store().create(DEPLOYMENTS, merge_patch(deployment(), change), now=NOW)


def made(resource: Resource) -> tuple[Any, Json]:
    store = new_store()
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    selector = {"matchLabels": {"app": "web"}}
    documents: dict[str, Json] = {
        "Pod": pod("web"),
        "Deployment": deployment(),
        "StatefulSet": {"spec": {"serviceName": "s", "selector": selector, "template": template}},
        "Job": {"spec": {"template": merge_patch(template, {"spec": {"restartPolicy": "Never"}})}},
        "PriorityClass": {"value": 5},
    }
    document = merge_patch(documents[resource.kind], {"metadata": {"name": "web"}})
    return store, store.create(resource, document, now=NOW)


@pytest.mark.parametrize(
    "resource, change, text",
    [
        (
            DEPLOYMENTS,
            {
                "spec": {
                    "selector": {"matchLabels": {"app": "x"}},
                    "template": {"metadata": {"labels": {"app": "x"}}},
                }
            },
            "field is immutable",
        ),
        (STATEFUL_SETS, {"spec": {"serviceName": "other"}}, "updates to statefulset spec"),
        (JOBS, {"spec": {"completions": 5}}, "field is immutable"),
        (JOBS, {"spec": {"template": {"spec": {"hostNetwork": True}}}}, "field is immutable"),
        (PODS, {"spec": {"nodeName": "n"}}, "pod updates may not change fields"),
        (PRIORITY_CLASSES, {"value": 6}, "may not be changed in an update"),
    ],
)
def test_what_an_update_must_leave_alone(resource: Resource, change: Json, text: str) -> None:
    store, obj = made(resource)
    with fails(422, "Invalid", text):
        store.patch(resource, obj["metadata"].get("namespace", ""), "web", change, now=NOW)


def test_a_suspended_job_may_be_steered() -> None:
    store, _ = made(JOBS)
    store.patch(JOBS, "default", "web", {"spec": {"suspend": True}}, now=NOW)
    steer = {"spec": {"suspend": False, "template": {"spec": {"nodeSelector": {"gpu": "a100"}}}}}
    assert store.patch(JOBS, "default", "web", steer, now=NOW)["spec"]["suspend"] is False


def test_unknown_fields_are_dropped() -> None:
    document = merge_patch(deployment(), {"spec": {"replica": 3, "template": {"spec": {"nodSelector": {}}}}})
    spec = new_store().create(DEPLOYMENTS, document, now=NOW)["spec"]
    assert "replica" not in spec
    assert "nodSelector" not in spec["template"]["spec"]


def test_nodes_get_canonical_quantities_from_every_side() -> None:
    store = new_store()
    status = {"capacity": {"cpu": "64000m", "nvidia.com/gpu": 8}, "allocatable": {"memory": "1024Gi"}}
    node = store.create(NODES, {"metadata": {"name": "n"}, "status": status}, now=NOW)
    assert node["status"]["capacity"] == {"cpu": "64", "nvidia.com/gpu": "8"}
    assert node["status"]["allocatable"] == {"memory": "1Ti"}
    node = store.update_status(NODES, "", "n", {"allocatable": {"cpu": 1.5}}, now=NOW)
    assert node["status"]["allocatable"] == {"cpu": "1500m"}


def test_two_taints_of_one_key_and_effect() -> None:
    taint = {"key": "a", "effect": "NoSchedule"}
    with fails(422, "Invalid", "Duplicate value"):
        new_store().create(NODES, {"metadata": {"name": "n"}, "spec": {"taints": [taint, taint]}}, now=NOW)


def test_owner_references_are_complete() -> None:
    document = {"metadata": {"name": "c", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x"}]}}
    with fails(422, "Invalid", "metadata.ownerReferences.uid"):
        new_store().create(CONFIG_MAPS, document, now=NOW, manager="m")


@pytest.mark.parametrize(
    "given, expected",
    [
        ("1", "1"),
        ("1000m", "1"),
        ("0.5", "500m"),
        (".5", "500m"),
        ("1500m", "1500m"),
        ("1.5Gi", "1536Mi"),
        ("1024Mi", "1Gi"),
        ("512", "512"),
        ("1000", "1k"),
        ("1000k", "1M"),
        ("0", "0"),
        ("0Gi", "0"),
        ("1e3", "1e3"),
        ("100Ki", "100Ki"),
        ("1Ki", "1Ki"),
        ("0.5Ki", "512"),
        ("+3", "3"),
        ("-1", "-1"),
        ("1n", "1n"),
        ("0.1n", "1n"),
        ("12E", "12E"),
    ],
)
def test_canonical_quantities(given: str, expected: str) -> None:
    assert canonical(given) == expected
    assert canonical(expected) == expected
    assert amount(given) == amount(expected)


@pytest.mark.parametrize("given", ["", "8Gx", "1 Gi", "Gi", "1.2.3", "--1", "1ki", "0x10"])
def test_what_is_no_quantity(given: str) -> None:
    with pytest.raises(ValueError, match="quantities must match"):
        canonical(given)


def crd(**version: Any) -> Json:
    names = {"kind": "Thing", "plural": "things"}
    full = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    spec = {"group": "x.io", "scope": "Namespaced", "names": names, "versions": [{**full, **version}]}
    return {"metadata": {"name": "things.x.io"}, "spec": spec}


@pytest.mark.parametrize(
    "document, text",
    [
        (merge_patch(crd(), {"metadata": {"name": "other.x.io"}}), "must be spec.names.plural"),
        (crd(storage=False), "exactly one version marked as storage version"),
        (crd(schema=None), "schemas are required"),
        (merge_patch(crd(), {"spec": {"scope": "Galaxy"}}), "Unsupported value"),
        (
            merge_patch(crd(), {"metadata": {"name": "things.x.k8s.io"}, "spec": {"group": "x.k8s.io"}}),
            "protected groups must have approval annotation",
        ),
    ],
)
def test_invalid_definitions(document: Json, text: str) -> None:
    with fails(422, "Invalid", text):
        new_store().create(CUSTOM_RESOURCE_DEFINITIONS, document, now=NOW)


SCHEMA: Json = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1},
                "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
                "parts": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "string"}}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "port": {"x-kubernetes-int-or-string": True},
            },
        }
    },
}
THINGS = Resource("x.io", "v1", "things", "Thing", custom=True)


def test_custom_objects_are_pruned_and_defaulted() -> None:
    spec = {"size": 1, "extra": 1, "parts": [{"n": "a", "m": 1}], "free": {"x": {"y": 1}}}
    completed = complete(SCHEMA, {"metadata": {"name": "a", "labels": {"l": "1"}}, "spec": spec, "other": 1})
    assert completed == {
        "metadata": {"name": "a", "labels": {"l": "1"}},
        "spec": {"size": 1, "parts": [{"n": "a"}], "free": {"x": {"y": 1}}, "color": "red"},
    }


@pytest.mark.parametrize(
    "spec, field",
    [
        ({"size": 0}, "spec.size"),
        ({"size": "x"}, "spec.size"),
        ({"size": True}, "spec.size"),
        ({}, "spec.size"),
        ({"size": 1, "color": "green"}, "spec.color"),
        ({"size": 1, "parts": [{"n": 1}]}, "spec.parts[0].n"),
        ({"size": 1, "port": []}, "spec.port"),
        ("x", "spec"),
        (None, "spec"),
    ],
)
def test_custom_objects_are_checked(spec: Any, field: str) -> None:
    with pytest.raises(ApiError) as refused:
        check(THINGS, SCHEMA, {"metadata": {"name": "a"}, "spec": spec})
    assert [cause["field"] for cause in refused.value.details["causes"]] == [field]
