"""The reflector on the simulated and on the real API server."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gpufleet.kube import client as client_module
from gpufleet.kube.client import Json, KubeClient
from gpufleet.kube.errors import NotServed
from gpufleet.kube.reflector import Changed, Reflector, Removed, Replaced, decode_json
from gpufleet.kube.resources import NODES, PODS
from gpufleet.kube.retry import Backoff, call_with_retries
from gpufleet.kube.structs import Node, Pod, read_node, read_pod
from tests.support.apiserver import NODE, ApiServer, config_map, pod, widget_crd
from tests.support.waiting import eventually

ME = "conformance"
QUICK = Backoff(base=0.05, cap=0.2)


class View:
    """A sink that keeps what exists by name, and the order in which it was told."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.log: list[str] = []

    def apply(self, change: Replaced[Any] | Changed[Any] | Removed[Any]) -> None:
        match change:
            case Replaced(items):
                self.objects = {name_of(item): item for item in items}
                self.log.append("=" + ",".join(self.objects))
            case Changed(item):
                self.objects[name_of(item)] = item
                self.log.append("+" + name_of(item))
            case Removed(item):
                self.objects.pop(name_of(item))
                self.log.append("-" + name_of(item))


def name_of(item: Any) -> str:
    return str(item["metadata"]["name"] if isinstance(item, dict) else item.metadata.name)


@contextlib.asynccontextmanager
async def running(reflector: Reflector[Any]) -> AsyncIterator[None]:
    task = asyncio.create_task(reflector.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def reflector_of(kube: KubeClient, view: View, namespace: str, **options: Any) -> Reflector[Json]:
    options = {"namespace": namespace, "label_selector": "test", "backoff": QUICK, **options}
    return Reflector(kube, "v1", "ConfigMap", view, decode_json, **options)


def labelled(namespace: str, name: str, **data: str) -> Json:
    return config_map(namespace, name, data, labels={"test": "yes"})


async def test_list_and_watch(kube: KubeClient, apiserver: ApiServer, namespace: str) -> None:
    admin, view = apiserver.admin, View()
    for name in ("a", "b"):
        admin.create(labelled(namespace, name)).expect(201)
    reflector = reflector_of(kube, view, namespace, page_size=1)
    async with running(reflector):
        await eventually(reflector.synced.is_set, "the list")
        assert view.log == ["=a,b"]
        await eventually(lambda: reflector.stats.watches == 1, "the watch")
        admin.create(labelled(namespace, "c")).expect(201)
        admin.merge(config_map(namespace, "a"), {"data": {"k": "v"}}).expect(200)
        admin.delete(config_map(namespace, "b")).expect(200)
        await eventually(lambda: len(view.log) == 4, "three events")
        assert view.log == ["=a,b", "+c", "+a", "-b"]
        assert view.objects["a"]["data"] == {"k": "v"}
        assert view.objects["c"]["apiVersion"] == "v1"


async def test_an_object_that_leaves_or_enters_the_selection(
    kube: KubeClient, apiserver: ApiServer, namespace: str
) -> None:
    admin, view = apiserver.admin, View()
    admin.create(labelled(namespace, "a")).expect(201)
    admin.create(config_map(namespace, "b")).expect(201)
    reflector = reflector_of(kube, view, namespace)
    async with running(reflector):
        await eventually(lambda: reflector.stats.watches == 1, "the watch")
        admin.merge(config_map(namespace, "a"), {"metadata": {"labels": None}}).expect(200)
        admin.merge(config_map(namespace, "b"), {"metadata": {"labels": {"test": "yes"}}}).expect(200)
        admin.merge(config_map(namespace, "a"), {"data": {"unseen": "yes"}}).expect(200)
        admin.create(labelled(namespace, "c")).expect(201)
        await eventually(lambda: "+c" in view.log, "the events")
        assert view.log == ["=a", "-a", "+b", "+c"]


async def test_only_its_own_namespace(kube: KubeClient, apiserver: ApiServer, namespace: str) -> None:
    admin, view = apiserver.admin, View()
    reflector = reflector_of(kube, view, namespace)
    elsewhere = f"e{secrets.token_hex(4)}"
    async with running(reflector):
        await eventually(lambda: reflector.stats.watches == 1, "the watch")
        admin.create(labelled("default", elsewhere)).expect(201)
        admin.create(labelled(namespace, "here")).expect(201)
        await eventually(lambda: len(view.log) == 2, "the event")
        assert view.log == ["=", "+here"]
    admin.delete(config_map("default", elsewhere)).expect(200)


async def test_one_object_by_its_name(kube: KubeClient, apiserver: ApiServer, namespace: str) -> None:
    admin, view = apiserver.admin, View()
    reflector = reflector_of(kube, view, namespace, label_selector="", field_selector="metadata.name=b")
    async with running(reflector):
        await eventually(lambda: reflector.stats.watches == 1, "the watch")
        for name in ("a", "b", "c"):
            admin.create(config_map(namespace, name)).expect(201)
        admin.merge(config_map(namespace, "b"), {"data": {"k": "v"}}).expect(200)
        await eventually(lambda: len(view.log) == 3, "the events")
        assert view.log == ["=", "+b", "+b"]


async def test_watches_that_the_server_ends_leave_no_gap(
    kube: KubeClient, apiserver: ApiServer, namespace: str
) -> None:
    admin, view = apiserver.admin, View()
    reflector = reflector_of(kube, view, namespace, watch_seconds=(1, 1))
    async with running(reflector):
        await eventually(lambda: reflector.stats.watches == 1, "the watch")
        written = 0
        while reflector.stats.watches < 3:
            admin.create(labelled(namespace, f"n{written}")).expect(201)
            written += 1
            await asyncio.sleep(0.05)
        await eventually(lambda: len(view.objects) == written, "every object")
    assert view.log == ["=", *(f"+n{n}" for n in range(written))]
    assert (reflector.stats.lists, reflector.stats.failures) == (1, 0)


async def test_a_later_run_goes_on_where_the_first_stopped(
    kube: KubeClient, apiserver: ApiServer, namespace: str
) -> None:
    admin, view = apiserver.admin, View()
    reflector = reflector_of(kube, view, namespace)
    async with running(reflector):
        await eventually(lambda: reflector.stats.watches == 1, "the watch")
    admin.create(labelled(namespace, "a")).expect(201)
    admin.delete(config_map(namespace, "a")).expect(200)
    async with running(reflector):
        await eventually(lambda: view.log == ["=", "+a", "-a"], "what happened meanwhile")
    assert reflector.stats.lists == 1


@pytest.mark.parametrize("what", ["pods", "nodes"])
async def test_structs_read_what_the_server_writes(kube: KubeClient, apiserver: ApiServer, what: str) -> None:
    if what == "nodes":
        nodes = View()
        node_reflector = Reflector[Node](kube, "v1", "Node", nodes, read_node, backoff=QUICK)
        async with running(node_reflector):
            await eventually(lambda: _is_ready(nodes.objects.get(NODE)), "the node to be ready")
        node = nodes.objects[NODE]
        assert node.status.allocatable["nvidia.com/gpu"] == "8"
        raw = await kube.get(NODES, NODE)
        assert node.metadata.labels == raw["metadata"]["labels"]
        return
    name, pods = f"p-{secrets.token_hex(4)}", View()
    reflector = Reflector[Pod](
        kube, "v1", "Pod", pods, read_pod, namespace="default", label_selector=f"test={name}", backoff=QUICK
    )
    async with running(reflector):
        await kube.create(pod(name), field_manager=ME)
        await eventually(lambda: name in pods.objects, "the pod")
        seen = pods.objects[name]
        assert (seen.spec.node_name, seen.status.phase) == (None, "Pending")
        assert seen.spec.containers[0].resources.requests == {"cpu": "1"}
        assert seen.metadata.creation_timestamp is not None
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes are available",
            "lastTransitionTime": "2026-11-22T02:10:00Z",
        }
        await kube.patch_status(PODS, name, {"conditions": [condition]}, "default", field_manager=ME)
        await eventually(lambda: pods.objects[name].status.conditions, "the condition")
        seen_condition = pods.objects[name].status.conditions[0]
        assert (seen_condition.reason, seen_condition.last_transition_time) == ("Unschedulable", "2026-11-22T02:10:00Z")
        await kube.delete(PODS, name, "default", grace_period_seconds=0)
        await eventually(lambda: name not in pods.objects, "the pod to go")
    assert reflector.stats.undecodable == 0


def _is_ready(node: Any) -> bool:
    return node is not None and ("Ready", "True") in [(c.type, c.status) for c in node.status.conditions]


async def test_a_kind_that_is_not_served_yet(
    kube: KubeClient, apiserver: ApiServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "DISCOVERY_HOLD_SECONDS", 0.1)
    group, view = f"g{secrets.token_hex(4)}.example", View()
    reflector = Reflector(kube, f"{group}/v1", "Widget", view, decode_json, namespace=namespace, backoff=QUICK)
    async with running(reflector):
        await eventually(lambda: isinstance(reflector.last_error, NotServed), "the refusal")
        assert not reflector.synced.is_set()
        apiserver.admin.create(widget_crd(group)).expect(201)
        await eventually(reflector.synced.is_set, "the new kind to be listed")
        widget = {"apiVersion": f"{group}/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": namespace}}
        # A real server answers 429 for a moment while it sets up the storage of a new kind.
        await call_with_retries(lambda: kube.apply(widget, field_manager=ME))
        await eventually(lambda: "w" in view.objects, "the widget")
        assert reflector.last_error is None


async def test_an_outage_and_versions_that_expired_meanwhile(
    kube: KubeClient, apiserver: ApiServer, namespace: str
) -> None:
    """A server that comes back without its history: everything is listed again, so the deletion is seen."""
    admin, view = apiserver.admin, View()
    for name in ("a", "b"):
        admin.create(labelled(namespace, name)).expect(201)
    reflector = reflector_of(kube, view, namespace)
    # This one is away while "b" is deleted, so its version is from before the outage.
    late_view = View()
    late = reflector_of(kube, late_view, namespace)
    async with running(late):
        await eventually(lambda: late.stats.watches == 1, "the watch")
    async with running(reflector):
        await eventually(lambda: reflector.stats.watches == 1, "the watch")
        admin.delete(config_map(namespace, "b")).expect(200)
        await eventually(lambda: view.log[-1] == "-b", "the deletion")
        with apiserver.interrupt():
            await eventually(lambda: reflector.last_error is not None, "the outage to be noticed")
        async with running(late):
            await eventually(lambda: late_view.log == ["=a,b", "=a"], "the second list")
            assert late.stats.expired >= 1
        apiserver.admin.create(labelled(namespace, "c")).expect(201)
        await eventually(lambda: "c" in view.objects, "the watch to go on")
        assert set(view.objects) == {"a", "c"}
        assert reflector.last_error is None
