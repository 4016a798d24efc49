"""The client in the ways that the services use it, on the simulated and on the real API server."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from gpufleet.kube.access import connect
from gpufleet.kube.client import DISCOVERY_HOLD_SECONDS, KubeClient
from gpufleet.kube.errors import ApiStatusError, NotServed
from gpufleet.kube.resources import CONFIG_MAPS, NODES, PODS
from gpufleet.kube.retry import call_with_retries
from tests.support.apiserver import NODE, ApiServer, config_map, deployment, pod, widget_crd
from tests.support.waiting import eventually

ME = "conformance"


async def refusal(awaitable: Any) -> ApiStatusError:
    with pytest.raises(ApiStatusError) as caught:
        await awaitable
    return caught.value


# Discovery


async def test_resources_are_found(kube: KubeClient) -> None:
    found = await kube.resource_for("apps/v1", "Deployment")
    assert (found.plural, found.namespaced) == ("deployments", True)
    assert {"status", "scale"} <= found.subresources
    assert (await kube.resource_for("batch/v1", "Job")).plural == "jobs"
    assert (await kube.resource_for("scheduling.k8s.io/v1", "PriorityClass")).namespaced is False


@pytest.mark.parametrize("api_version, kind", [("apps/v1", "Nothing"), ("nothing.example/v1", "Job"), ("v9", "Pod")])
async def test_what_is_not_served(kube: KubeClient, api_version: str, kind: str) -> None:
    with pytest.raises(NotServed):
        await kube.resource_for(api_version, kind)


async def test_the_built_in_paths_are_right(kube: KubeClient, namespace: str) -> None:
    for resource in (NODES, PODS, CONFIG_MAPS):
        await kube.list(resource, namespace if resource.namespaced else None)


async def test_a_kind_can_come_later(apiserver: ApiServer, namespace: str) -> None:
    group = f"g{secrets.token_hex(4)}.example"
    widget = {
        "apiVersion": f"{group}/v1",
        "kind": "Widget",
        "metadata": {"name": "w", "namespace": namespace},
        "spec": {"replicas": 3},
    }
    now = [0.0]
    async with await connect("conformance", apiserver.access()) as opened:
        kube = KubeClient("conformance", opened._transport, clock=lambda: now[0])
        with pytest.raises(NotServed):
            await kube.apply(widget, field_manager=ME)
        apiserver.admin.create(widget_crd(group)).expect(201)

        async def applied() -> bool:
            now[0] += DISCOVERY_HOLD_SECONDS
            try:
                # A real server answers 429 for a moment while it sets up the storage of a new kind.
                await call_with_retries(lambda: kube.apply(widget, field_manager=ME))
            except NotServed:
                return False
            return True

        await eventually(applied, "the new kind to be served")
        found = await kube.resource_for(f"{group}/v1", "Widget")
        assert found.subresources >= {"status", "scale"}
        written = await kube.patch_status(found, "w", {"replicas": 2}, namespace, field_manager=ME)
        assert (written["status"], written["metadata"]["generation"]) == ({"replicas": 2}, 1)
        scale = await kube.get(found, "w", namespace, subresource="scale")
        assert (scale["kind"], scale["spec"]["replicas"], scale["status"]["replicas"]) == ("Scale", 3, 2)
        listing = await kube.list(found, namespace)
        assert [item["metadata"]["name"] for item in listing.items] == ["w"]


async def test_incarnation(kube: KubeClient, apiserver: ApiServer) -> None:
    uid = apiserver.admin.request("GET", "/api/v1/namespaces/kube-system").expect(200)["metadata"]["uid"]
    assert await kube.incarnation() == uid


# Reading


async def test_get(kube: KubeClient, apiserver: ApiServer, namespace: str) -> None:
    created = apiserver.admin.create(config_map(namespace, "a", {"k": "v"})).expect(201)
    assert await kube.get(CONFIG_MAPS, "a", namespace) == created
    error = await refusal(kube.get(CONFIG_MAPS, "b", namespace))
    assert (error.not_found, error.details_name, error.namespace_missing) == (True, "b", False)


@pytest.mark.parametrize("page_size", [0, 1, 2, 5, 500])
async def test_list_in_pages(kube: KubeClient, apiserver: ApiServer, namespace: str, page_size: int) -> None:
    for name in ("a", "b", "c", "d", "e"):
        last = apiserver.admin.create(config_map(namespace, f"{name}-cm", labels={"is": name})).expect(201)
    listing = await kube.list(CONFIG_MAPS, namespace, label_selector="is", page_size=page_size)
    assert [item["metadata"]["name"] for item in listing.items] == ["a-cm", "b-cm", "c-cm", "d-cm", "e-cm"]
    assert {(item["apiVersion"], item["kind"]) for item in listing.items} == {("v1", "ConfigMap")}
    assert int(listing.resource_version) >= int(last["metadata"]["resourceVersion"])


@pytest.mark.parametrize(
    "label_selector, names",
    [
        ("tier=idc", "ab"),
        ("tier==idc,zone!=z1", "b"),
        ("zone in (z1,z2)", "abc"),
        ("zone notin (z1)", "bcd"),
        ("zone", "abc"),
        ("!zone", "d"),
        ("tier=none", ""),
    ],
)
async def test_label_selectors(
    kube: KubeClient, apiserver: ApiServer, namespace: str, label_selector: str, names: str
) -> None:
    labels = {
        "a": {"tier": "idc", "zone": "z1"},
        "b": {"tier": "idc", "zone": "z2"},
        "c": {"tier": "ack", "zone": "z2"},
        "d": {"tier": "ack"},
    }
    for name, with_labels in labels.items():
        apiserver.admin.create(config_map(namespace, name, labels={**with_labels, "mine": "yes"})).expect(201)
    listing = await kube.list(CONFIG_MAPS, namespace, label_selector=f"mine=yes,{label_selector}", page_size=2)
    assert "".join(item["metadata"]["name"] for item in listing.items) == names


async def test_field_selectors(kube: KubeClient, apiserver: ApiServer, namespace: str) -> None:
    for name in ("a", "b"):
        apiserver.admin.create(config_map(namespace, name)).expect(201)
    everywhere = await kube.list(CONFIG_MAPS, field_selector=f"metadata.namespace={namespace},metadata.name=b")
    assert [item["metadata"]["name"] for item in everywhere.items] == ["b"]
    assert (await refusal(kube.list(CONFIG_MAPS, field_selector="spec.colour=red"))).invalid
    assert (await refusal(kube.list(CONFIG_MAPS, label_selector="a=b=c"))).invalid


async def test_a_list_in_a_namespace_that_does_not_exist_is_empty(kube: KubeClient) -> None:
    assert (await kube.list(CONFIG_MAPS, "no-such-namespace")).items == []


async def test_a_wrong_token_is_unauthorized(apiserver: ApiServer) -> None:
    async with await connect("conformance", apiserver.access(token="wrong")) as client:
        error = await refusal(client.list(NODES))
    assert (error.unauthorized, error.reason) == (True, "Unauthorized")


# Writing


async def test_create(kube: KubeClient, namespace: str) -> None:
    made = await kube.create(config_map(namespace, "a", {"k": "v"}), field_manager=ME)
    assert made["metadata"]["uid"]
    assert made["metadata"]["managedFields"][0]["manager"] == ME
    error = await refusal(kube.create(config_map(namespace, "a"), field_manager=ME))
    assert (error.already_exists, error.conflict, error.stale) == (True, True, False)


async def test_create_with_a_generated_name(kube: KubeClient, namespace: str) -> None:
    obj = config_map(namespace, "")
    obj["metadata"] = {"namespace": namespace, "generateName": "made-"}
    names = {(await kube.create(obj, field_manager=ME))["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("made-") and len(name) == 10 for name in names)


async def test_a_missing_namespace_is_told_from_a_missing_object(kube: KubeClient) -> None:
    for write in (kube.create, kube.apply):
        error = await refusal(write(config_map("no-such-namespace", "a"), field_manager=ME))
        assert (error.not_found, error.namespace_missing) == (True, True)


async def test_apply_creates_and_then_changes_nothing(kube: KubeClient, namespace: str) -> None:
    obj = deployment(namespace, "d")
    made = await kube.apply(obj, field_manager=ME)
    assert made["metadata"]["generation"] == 1
    again = await kube.apply(obj, field_manager=ME)
    assert again["metadata"]["uid"] == made["metadata"]["uid"]
    managers = {entry["manager"] for entry in again["metadata"]["managedFields"] if entry["operation"] == "Apply"}
    assert managers == {ME}


async def test_an_apply_that_changes_nothing_keeps_the_resource_version(kube: KubeClient, namespace: str) -> None:
    obj = config_map(namespace, "a", {"k": "v"})
    first = await kube.apply(obj, field_manager=ME)
    second = await kube.apply(obj, field_manager=ME, force=True)
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_apply_removes_what_it_does_not_say_any_more(kube: KubeClient, namespace: str) -> None:
    await kube.apply(config_map(namespace, "a", {"k": "v", "gone": "soon"}), field_manager=ME)
    await kube.apply(config_map(namespace, "a", {"other": "o"}), field_manager="other")
    left = await kube.apply(config_map(namespace, "a", {"k": "v"}), field_manager=ME)
    assert left["data"] == {"k": "v", "other": "o"}


async def test_a_field_of_another_manager_is_a_conflict_unless_forced(kube: KubeClient, namespace: str) -> None:
    await kube.apply(deployment(namespace, "d", image="one"), field_manager="other")
    error = await refusal(kube.apply(deployment(namespace, "d", image="two"), field_manager=ME))
    assert (error.field_conflict, error.conflict, error.stale) == (True, True, False)
    assert [cause.field for cause in error.causes] == ['.spec.template.spec.containers[name="main"].image']
    assert 'conflict with "other"' in error.causes[0].message
    taken = await kube.apply(deployment(namespace, "d", image="two"), field_manager=ME, force=True)
    assert taken["spec"]["template"]["spec"]["containers"][0]["image"] == "two"
    assert (await refusal(kube.apply(deployment(namespace, "d", image="one"), field_manager="other"))).field_conflict


async def test_a_field_left_out_stays_with_its_manager(kube: KubeClient, namespace: str) -> None:
    """An in-cluster autoscaler keeps spec.replicas as long as the dispatcher does not name it."""
    obj = deployment(namespace, "d")
    del obj["spec"]["replicas"]
    await kube.apply(obj, field_manager=ME)
    found = await kube.resource_for("apps/v1", "Deployment")
    await kube.patch_merge(found, "d", {"spec": {"paused": True}}, namespace, field_manager="hpa")
    again = await kube.apply(obj, field_manager=ME)
    assert again["spec"]["paused"] is True


async def test_status_goes_its_own_way(kube: KubeClient, namespace: str) -> None:
    obj = deployment(namespace, "d")
    obj["spec"]["paused"] = True
    made = await kube.apply({**obj, "status": {"replicas": 7}}, field_manager=ME)
    assert made.get("status", {}).get("replicas", 0) == 0
    found = await kube.resource_for("apps/v1", "Deployment")
    condition = {"type": "Custom", "status": "True"}
    written = await kube.patch_status(found, "d", {"conditions": [condition]}, namespace, field_manager=ME)
    assert [c["type"] for c in written["status"]["conditions"]] == ["Custom"]
    assert written["metadata"]["generation"] == made["metadata"]["generation"]


async def test_merge_patch(kube: KubeClient, namespace: str) -> None:
    await kube.create(config_map(namespace, "a", {"k": "v", "l": "w"}), field_manager=ME)
    patched = await kube.patch_merge(CONFIG_MAPS, "a", {"data": {"k": None, "m": "x"}}, namespace, field_manager=ME)
    assert patched["data"] == {"l": "w", "m": "x"}
    assert (await refusal(kube.patch_merge(CONFIG_MAPS, "b", {}, namespace, field_manager=ME))).not_found


async def test_a_merge_patch_can_hold_to_a_version(kube: KubeClient, namespace: str) -> None:
    made = await kube.create(config_map(namespace, "a"), field_manager=ME)
    version = made["metadata"]["resourceVersion"]
    patch = {"metadata": {"resourceVersion": version}, "data": {"k": "v"}}
    await kube.patch_merge(CONFIG_MAPS, "a", patch, namespace, field_manager=ME)
    assert (await refusal(kube.patch_merge(CONFIG_MAPS, "a", patch, namespace, field_manager=ME))).stale


def _negative(obj: dict[str, Any]) -> None:
    obj["spec"]["replicas"] = -1


def _unknown_field(obj: dict[str, Any]) -> None:
    obj["spec"]["replica"] = 1


def _bad_quantity(obj: dict[str, Any]) -> None:
    obj["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"memory": "8Gx"}}


def _bad_name(obj: dict[str, Any]) -> None:
    obj["metadata"]["name"] = "Not_A_Name"


@pytest.mark.parametrize(
    "spoil, field, text",
    [
        (_negative, "spec.replicas", "must be greater than or equal to 0"),
        (_unknown_field, "", ".spec.replica: field not declared in schema"),
        (_bad_quantity, "", "quantities must match the regular expression"),
        (_bad_name, "metadata.name", "lowercase RFC 1123 subdomain"),
    ],
)
async def test_a_wrong_object_is_invalid_and_not_worth_a_retry(
    kube: KubeClient, namespace: str, spoil: Any, field: str, text: str
) -> None:
    obj = deployment(namespace, "d")
    spoil(obj)
    error = await refusal(kube.apply(obj, field_manager=ME))
    assert (error.invalid, error.unavailable, error.throttled) == (True, False, False)
    assert text in error.message
    if field:
        assert field in [cause.field for cause in error.causes]


async def test_an_immutable_field_is_invalid(kube: KubeClient, namespace: str) -> None:
    obj = deployment(namespace, "d")
    await kube.apply(obj, field_manager=ME)
    obj["spec"]["selector"]["matchLabels"] = {"app": "x"}
    obj["spec"]["template"]["metadata"]["labels"] = {"app": "x"}
    error = await refusal(kube.apply(obj, field_manager=ME, force=True))
    assert (error.invalid, error.stale) == (True, False)


async def test_delete(kube: KubeClient, namespace: str) -> None:
    made = await kube.create(config_map(namespace, "a"), field_manager=ME)
    uid, version = made["metadata"]["uid"], made["metadata"]["resourceVersion"]
    for preconditions in ({"uid": "other"}, {"resource_version": "1"}, {"uid": uid, "resource_version": "1"}):
        error = await refusal(kube.delete(CONFIG_MAPS, "a", namespace, **preconditions))
        assert (error.stale, error.conflict) == (True, True)
    await kube.delete(CONFIG_MAPS, "a", namespace, uid=uid, resource_version=version)
    for preconditions in ({}, {"uid": uid}):
        assert (await refusal(kube.delete(CONFIG_MAPS, "a", namespace, **preconditions))).not_found


async def test_a_finalizer_keeps_an_object(kube: KubeClient, namespace: str) -> None:
    await kube.create(config_map(namespace, "a", finalizers=["gpufleet.io/hold"]), field_manager=ME)
    answer = await kube.delete(CONFIG_MAPS, "a", namespace)
    assert answer["metadata"]["deletionTimestamp"]
    assert (await kube.get(CONFIG_MAPS, "a", namespace))["metadata"]["finalizers"] == ["gpufleet.io/hold"]
    await kube.patch_merge(CONFIG_MAPS, "a", {"metadata": {"finalizers": None}}, namespace, field_manager=ME)
    assert (await refusal(kube.get(CONFIG_MAPS, "a", namespace))).not_found


async def test_deleting_a_job_takes_its_pods_along(kube: KubeClient, namespace: str) -> None:
    """The API's own default for jobs would leave the pods behind."""
    jobs = await kube.resource_for("batch/v1", "Job")
    template = pod("x")["spec"]
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "j", "namespace": namespace},
        "spec": {"template": {"spec": {**template, "restartPolicy": "Never"}}},
    }
    await kube.apply(job, field_manager=ME)

    async def pods() -> int:
        return len((await kube.list(PODS, namespace)).items)

    async def has_pods() -> bool:
        return await pods() == 1

    async def has_none() -> bool:
        return await pods() == 0

    await eventually(has_pods, "the job's pod")
    await kube.delete(jobs, "j", namespace)
    await eventually(has_none, "the job's pod to go")


async def test_a_pod_is_bound(kube: KubeClient) -> None:
    name = f"p-{secrets.token_hex(4)}"
    await kube.create(pod(name), field_manager=ME)
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name},
        "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
    }
    await kube.create_subresource(PODS, name, "binding", binding, "default")
    assert (await kube.get(PODS, name, "default"))["spec"]["nodeName"] == NODE
    assert (await refusal(kube.create_subresource(PODS, name, "binding", binding, "default"))).conflict
    await kube.delete(PODS, name, "default", grace_period_seconds=0)
