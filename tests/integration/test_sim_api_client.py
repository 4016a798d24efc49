"""kubernetes_asyncio against the simulated API: its generated methods, and raw requests through its ApiClient."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_asyncio import client as typed_client
from kubernetes_asyncio import config, watch

from sim.api.crds import install_crds
from sim.api.resources import PODS
from tests.support.simapi import Api, config_map, deployment, pod, served

# Its annotations describe decoded models only, not the dicts and raw responses that it takes and gives as well.
client: Any = typed_client


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with served(tls=True) as api:
        yield api


@pytest.fixture
async def kube(api: Api, tmp_path: Path) -> AsyncIterator[Any]:
    """An ApiClient made from the server's kubeconfig."""
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(api.server.kubeconfig()))
    configuration = client.Configuration()
    await config.load_kube_config(config_file=str(path), client_configuration=configuration)
    async with client.ApiClient(configuration) as kube:
        yield kube


async def test_generated_methods(api: Api, kube: Any) -> None:
    apps, core = client.AppsV1Api(kube), client.CoreV1Api(kube)
    made = await apps.create_namespaced_deployment("default", deployment())
    assert made.spec.replicas == 2
    made.spec.replicas = 4
    assert (await apps.replace_namespaced_deployment("web", "default", made)).spec.replicas == 4
    with pytest.raises(client.ApiException) as refused:
        await apps.replace_namespaced_deployment("web", "default", made)
    assert refused.value.status == 409
    await apps.patch_namespaced_deployment_scale("web", "default", {"spec": {"replicas": 6}})
    assert (await apps.read_namespaced_deployment_scale("web", "default")).spec.replicas == 6
    await core.create_namespaced_pod("default", pod())
    target = client.V1ObjectReference(kind="Node", name="n1")
    binding = client.V1Binding(metadata=client.V1ObjectMeta(name="p"), target=target)
    await core.create_namespaced_pod_binding("p", "default", binding, _preload_content=False)
    assert (await core.read_namespaced_pod("p", "default")).spec.node_name == "n1"
    listed = await core.list_pod_for_all_namespaces(field_selector="spec.nodeName=n1", limit=10)
    assert [item.metadata.name for item in listed.items] == ["p"]
    await core.delete_namespaced_pod("p", "default", grace_period_seconds=0)
    with pytest.raises(client.ApiException) as refused:
        await core.read_namespaced_pod("p", "default")
    assert json.loads(refused.value.body)["reason"] == "NotFound"
    assert (await client.VersionApi(kube).get_code()).git_version.startswith("v1.")
    names = {group.name for group in (await client.ApisApi(kube).get_api_versions()).groups}
    assert "apps" in names


async def test_apply_and_custom_objects(api: Api, kube: Any) -> None:
    install_crds(api.store, now=time.time())
    apps, custom = client.AppsV1Api(kube), client.CustomObjectsApi(kube)
    options = {"field_manager": "gpufleet", "_content_type": "application/apply-patch+yaml"}
    applied = await apps.patch_namespaced_deployment("web", "default", deployment(), force=True, **options)
    assert applied.metadata.managed_fields[0].operation == "Apply"
    job = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": "j"}, "spec": {"a": 1}}
    place = ("kubeflow.org", "v1", "default", "pytorchjobs")
    await custom.create_namespaced_custom_object(*place, job)
    status = {"status": {"conditions": [{"type": "Running"}]}}
    await custom.patch_namespaced_custom_object_status(
        *place, "j", status, _content_type="application/merge-patch+json"
    )
    listed = await custom.list_namespaced_custom_object(*place)
    assert listed["items"][0]["status"] == status["status"]


async def test_raw_requests_and_watch(api: Api, kube: Any) -> None:
    core = client.CoreV1Api(kube)
    response = await core.list_namespaced_config_map("default", limit=5, _preload_content=False)
    version = json.loads(await response.read())["metadata"]["resourceVersion"]
    await core.create_namespaced_config_map("default", config_map())
    stream = await core.list_namespaced_config_map(
        "default",
        watch=True,
        resource_version=version,
        allow_watch_bookmarks=True,
        timeout_seconds=30,
        _preload_content=False,
    )
    event = json.loads(await stream.content.readline())
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "cm")
    event = json.loads(await stream.content.readline())
    assert event["type"] == "BOOKMARK"
    stream.close()


async def test_the_watch_helper(api: Api, kube: Any) -> None:
    api.store.create(PODS, pod("a"), now=time.time())
    seen = []
    async with watch.Watch() as watcher:
        method = client.CoreV1Api(kube).list_namespaced_pod
        async for event in watcher.stream(method, "default", timeout_seconds=30):
            seen.append((event["type"], event["object"].metadata.name))
            if len(seen) == 1:
                api.store.create(PODS, pod("b"), now=time.time())
            elif len(seen) == 2:
                api.store.delete(PODS, "default", "a", now=time.time())
            else:
                break
    assert seen == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]
