"""The simulated API over HTTP: reading, watching, writing, refusing, and the faults that can be injected."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from sim.api.crds import install_crds
from sim.api.resources import CONFIG_MAPS
from sim.api.server import SimServer
from sim.api.store import Store
from tests.support.simapi import (
    APPLY,
    CONFIG_MAPS_PATH,
    DEPLOYMENTS_PATH,
    MERGE,
    NOW,
    PODS_PATH,
    STRATEGIC,
    Api,
    config_map,
    deployment,
    pod,
    served,
)

Json = dict[str, Any]


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with served() as api:
        yield api


def add_config_maps(api: Api, *names: str, **metadata: Any) -> None:
    for name in names:
        api.store.create(CONFIG_MAPS, config_map(name, **metadata), now=NOW)


class Watch:
    """A watch: its events one by one."""

    def __init__(self, api: Api, path: str, **query: str) -> None:
        self._request = api.session.get(api.url(path), params={"watch": "true", **query})

    async def __aenter__(self) -> Watch:
        self._response = await self._request.__aenter__()
        self.status = self._response.status
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self._response.close()

    async def next(self) -> Json:
        line = await asyncio.wait_for(self._response.content.readline(), 30)
        event: Json = json.loads(line) if line else {"type": "END"}
        return event

    async def names(self, count: int) -> list[tuple[str, str]]:
        found = []
        for _ in range(count):
            event = await self.next()
            found.append((event["type"], event["object"]["metadata"].get("name", "")))
        return found


async def test_token_is_wanted_except_for_health(api: Api) -> None:
    async with aiohttp.ClientSession() as stranger:
        for path, code in (("/api", 401), (PODS_PATH, 401), ("/healthz", 200), ("/readyz", 200), ("/version", 200)):
            async with stranger.get(api.url(path)) as response:
                assert response.status == code, path
        async with stranger.get(api.url("/api"), headers={"Authorization": "Bearer wrong"}) as response:
            assert (await response.json())["reason"] == "Unauthorized"
        async with stranger.get(f"{api.server.address}/clusters/nope/api") as response:
            assert response.status == 404


async def test_discovery_in_both_forms(api: Api) -> None:
    install_crds(api.store, now=NOW)
    _, groups = await api.call("GET", "/apis")
    assert {"apps", "batch", "kubeflow.org", "ray.io"} <= {group["name"] for group in groups["groups"]}
    _, listed = await api.call("GET", "/apis/kubeflow.org/v1")
    names = {resource["name"] for resource in listed["resources"]}
    assert {"pytorchjobs", "pytorchjobs/status", "pytorchjobs/scale"} <= names
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    _, aggregated = await api.call("GET", "/apis", accept=accept)
    assert aggregated["kind"] == "APIGroupDiscoveryList"
    assert (await api.call("GET", "/apis/nope.io/v1"))[0] == 404
    assert (await api.call("GET", "/api/v1/namespaces/default/nopes"))[0] == 404


async def test_items_of_builtin_lists_carry_no_kind(api: Api) -> None:
    add_config_maps(api, "a")
    _, listed = await api.call("GET", CONFIG_MAPS_PATH)
    assert (listed["kind"], listed["apiVersion"]) == ("ConfigMapList", "v1")
    assert "kind" not in listed["items"][0]
    install_crds(api.store, now=NOW)
    job = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": "j"}, "spec": {}}
    path = "/apis/kubeflow.org/v1/namespaces/default/pytorchjobs"
    assert (await api.call("POST", path, job))[0] == 201
    _, listed = await api.call("GET", path)
    assert listed["items"][0]["kind"] == "PyTorchJob"


async def test_pages_by_continue(api: Api) -> None:
    add_config_maps(api, "a", "b", "c", "d", "e")
    seen: list[str] = []
    versions = set()
    token = ""
    while True:
        _, page = await api.call("GET", f"{CONFIG_MAPS_PATH}?limit=2&continue={token}")
        seen += [item["metadata"]["name"] for item in page["items"]]
        versions.add(page["metadata"]["resourceVersion"])
        token = page["metadata"].get("continue", "")
        if not token:
            break
        api.store.create(CONFIG_MAPS, config_map(f"later{len(seen)}"), now=NOW)
    assert seen == ["a", "b", "c", "d", "e"]
    assert len(versions) == 1
    _, page = await api.call("GET", f"{CONFIG_MAPS_PATH}?limit=1")
    add_config_maps(api, "newest")
    api.store.compact()
    code, status = await api.call("GET", f"{CONFIG_MAPS_PATH}?limit=1&continue={page['metadata']['continue']}")
    assert (code, status["reason"]) == (410, "Expired")
    code, status = await api.call("GET", f"{CONFIG_MAPS_PATH}?limit=1&continue=rubbish")
    assert (code, status["reason"]) == (400, "BadRequest")


@pytest.mark.parametrize(
    "query, code, reason",
    [
        ("labelSelector=a%20in%20b", 400, "BadRequest"),
        ("fieldSelector=data.a%3Db", 400, "BadRequest"),
        ("limit=x", 400, "BadRequest"),
        ("resourceVersion=abc", 400, "BadRequest"),
        ("resourceVersion=999999", 504, "Timeout"),
    ],
)
async def test_lists_that_are_refused(api: Api, query: str, code: int, reason: str) -> None:
    got, status = await api.call("GET", f"{CONFIG_MAPS_PATH}?{query}")
    assert (got, status["reason"], status["kind"]) == (code, reason, "Status")


async def test_watch_resumes_behind_a_version(api: Api) -> None:
    add_config_maps(api, "a")
    version = str(api.store.version)
    add_config_maps(api, "b")
    async with Watch(api, CONFIG_MAPS_PATH, resourceVersion=version) as watch:
        assert await watch.names(1) == [("ADDED", "b")]
        api.store.delete(CONFIG_MAPS, "default", "a", now=NOW)
        event = await watch.next()
        assert (event["type"], event["object"]["kind"]) == ("DELETED", "ConfigMap")
        assert event["object"]["metadata"]["resourceVersion"] == str(api.store.version)


async def test_watch_without_a_version_begins_with_what_is_there(api: Api) -> None:
    add_config_maps(api, "a", "b")
    async with Watch(api, CONFIG_MAPS_PATH) as watch:
        assert await watch.names(2) == [("ADDED", "a"), ("ADDED", "b")]
        add_config_maps(api, "c")
        assert await watch.names(1) == [("ADDED", "c")]


async def test_watch_of_a_selection_sees_objects_come_and_go(api: Api) -> None:
    version = str(api.store.version)
    async with Watch(api, CONFIG_MAPS_PATH, resourceVersion=version, labelSelector="a=b") as watch:
        add_config_maps(api, "x", "y")
        for labels in ({"a": "b"}, {"a": "b", "c": "d"}, {"a": None}):
            api.store.patch(CONFIG_MAPS, "default", "x", {"metadata": {"labels": labels}}, now=NOW)
        assert await watch.names(3) == [("ADDED", "x"), ("MODIFIED", "x"), ("DELETED", "x")]


async def test_watch_list_ends_with_a_marked_bookmark(api: Api) -> None:
    add_config_maps(api, "a")
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    async with Watch(api, CONFIG_MAPS_PATH, **query) as watch:
        assert await watch.names(1) == [("ADDED", "a")]
        event = await watch.next()
        assert event["type"] == "BOOKMARK"
        assert event["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert event["object"]["metadata"]["resourceVersion"] == str(api.store.version)
    code, _ = await api.call("GET", f"{CONFIG_MAPS_PATH}?watch=1&sendInitialEvents=true")
    assert code == 422


async def test_idle_watch_gets_bookmarks_and_ends_in_time(api: Api) -> None:
    version = str(api.store.version)
    query = {"resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": "1"}
    async with Watch(api, CONFIG_MAPS_PATH, **query) as watch:
        event = await watch.next()
        assert (event["type"], event["object"]["metadata"]["resourceVersion"]) == ("BOOKMARK", version)
        while event["type"] != "END":
            event = await watch.next()


async def test_watch_from_a_forgotten_version_ends_with_an_error_event(api: Api) -> None:
    version = str(api.store.version - 1)
    add_config_maps(api, "a")
    api.store.compact()
    async with Watch(api, CONFIG_MAPS_PATH, resourceVersion=version) as watch:
        event = await watch.next()
        assert watch.status == 200
        assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert (await watch.next())["type"] == "END"


async def test_apply_over_http(api: Api) -> None:
    path = f"{DEPLOYMENTS_PATH}/web?fieldManager=m1"
    code, made = await api.call("PATCH", path, deployment(resourceVersion="1"), media=APPLY)
    assert code == 201
    assert made["metadata"]["managedFields"][0]["manager"] == "m1"
    yaml_body = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 3}\n"
    code, status = await api.call("PATCH", f"{DEPLOYMENTS_PATH}/web?fieldManager=m2", yaml_body, media=APPLY)
    assert (code, status["details"]["causes"][0]["reason"]) == (409, "FieldManagerConflict")
    code, changed = await api.call(
        "PATCH", f"{DEPLOYMENTS_PATH}/web?fieldManager=m2&force=true", yaml_body, media=APPLY
    )
    assert (code, changed["spec"]["replicas"]) == (200, 3)
    code, status = await api.call("PATCH", f"{DEPLOYMENTS_PATH}/web", deployment(), media=APPLY)
    assert (code, status["details"]["causes"][0]["field"]) == (422, "fieldManager")
    code, _ = await api.call("PATCH", f"{DEPLOYMENTS_PATH}/web?force=true", {}, media=MERGE)
    assert code == 422


async def test_subresources(api: Api) -> None:
    await api.call("POST", DEPLOYMENTS_PATH, deployment())
    _, scale = await api.call("GET", f"{DEPLOYMENTS_PATH}/web/scale")
    assert (scale["kind"], scale["spec"], scale["status"]["selector"]) == ("Scale", {"replicas": 2}, "app=web")
    scale["spec"]["replicas"] = 5
    assert (await api.call("PUT", f"{DEPLOYMENTS_PATH}/web/scale", scale))[0] == 200
    assert (await api.call("PUT", f"{DEPLOYMENTS_PATH}/web/scale", scale))[0] == 409
    status = {"status": {"replicas": 4}, "spec": {"replicas": 1}}
    _, changed = await api.call("PATCH", f"{DEPLOYMENTS_PATH}/web/status", status, media=STRATEGIC)
    assert (changed["spec"]["replicas"], changed["status"]) == (5, {"replicas": 4})
    await api.call("POST", PODS_PATH, pod())
    binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}}
    assert (await api.call("POST", f"{PODS_PATH}/p/binding", binding))[0] == 201
    assert (await api.call("POST", f"{PODS_PATH}/p/binding", binding))[0] == 409
    assert (await api.call("POST", f"{PODS_PATH}/p/eviction", {"metadata": {"name": "p"}}))[0] == 201
    _, evicted = await api.call("GET", f"{PODS_PATH}/p")
    assert "deletionTimestamp" in evicted["metadata"]
    code, status = await api.call("GET", f"{PODS_PATH}/p/log")
    assert (code, "write no logs" in status["message"]) == (501, True)


async def test_delete_options_and_collections(api: Api) -> None:
    add_config_maps(api, "a", "b", labels={"x": "y"})
    add_config_maps(api, "c")
    wrong = {"preconditions": {"uid": "other"}}
    assert (await api.call("DELETE", f"{CONFIG_MAPS_PATH}/c", wrong))[0] == 409
    code, status = await api.call("DELETE", f"{CONFIG_MAPS_PATH}/c", {"propagationPolicy": "Nope"})
    assert (code, status["reason"]) == (422, "Invalid")
    code, gone = await api.call("DELETE", f"{CONFIG_MAPS_PATH}?labelSelector=x%3Dy")
    assert (code, len(gone["items"])) == (200, 2)
    code, status = await api.call("DELETE", f"{CONFIG_MAPS_PATH}/c?propagationPolicy=Background")
    assert (code, status["status"], status["details"]["name"]) == (200, "Success", "c")
    assert api.store.count(CONFIG_MAPS) == 0


async def test_dry_run_and_strict_fields(api: Api) -> None:
    misspelt = deployment()
    misspelt["spec"]["replica"] = 1
    code, _ = await api.call("POST", f"{DEPLOYMENTS_PATH}?dryRun=All", deployment())
    assert code == 201
    assert (await api.call("GET", f"{DEPLOYMENTS_PATH}/web"))[0] == 404
    code, status = await api.call("POST", f"{DEPLOYMENTS_PATH}?fieldValidation=Strict", misspelt)
    assert (code, 'unknown field "spec.replica"' in status["message"]) == (400, True)
    async with api.session.post(api.url(DEPLOYMENTS_PATH), json=misspelt) as response:
        assert response.status == 201
        assert 'unknown field \\"spec.replica\\"' in response.headers["Warning"]
    assert (await api.call("POST", f"{DEPLOYMENTS_PATH}?dryRun=Some", deployment()))[0] == 422


@pytest.mark.parametrize(
    "method, path, body, media, code",
    [
        ("POST", DEPLOYMENTS_PATH, "{", "application/json", 400),
        ("POST", DEPLOYMENTS_PATH, "[1]", "application/json", 400),
        ("POST", DEPLOYMENTS_PATH, "x", "text/plain", 415),
        ("POST", DEPLOYMENTS_PATH, "\xff\x00", "application/vnd.kubernetes.protobuf", 415),
        ("PATCH", DEPLOYMENTS_PATH + "/x?fieldManager=m", "a: [", APPLY, 400),
        ("PATCH", DEPLOYMENTS_PATH + "/x", "{}", "application/json", 415),
        ("PUT", DEPLOYMENTS_PATH, "{}", "application/json", 405),
        ("POST", DEPLOYMENTS_PATH + "/x", "{}", "application/json", 405),
        ("DELETE", "/api/v1/namespaces", None, "application/json", 405),
        ("OPTIONS", DEPLOYMENTS_PATH, None, "application/json", 405),
        ("GET", "/apis/apps/v1/deployments/x", None, "", 404),
        ("GET", "/api/v1/namespaces/default/nodes", None, "", 404),
        ("GET", "/apis/apps/v1/namespaces/default/deployments/x/nope", None, "", 404),
    ],
)
async def test_requests_that_make_no_sense(api: Api, method: str, path: str, body: Any, media: str, code: int) -> None:
    got, status = await api.call(method, path, body, media=media)
    assert (got, status["kind"], status["code"]) == (code, "Status", code)


async def test_too_large_bodies_are_refused(api: Api) -> None:
    body = json.dumps({**config_map(), "data": {"a": "x" * (3 * 1024 * 1024)}})
    assert (await api.call("POST", CONFIG_MAPS_PATH, body))[0] == 413


async def test_events_of_both_groups_are_one(api: Api) -> None:
    event = {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
        "reason": "ProvisionNode",
        "message": "text",
    }
    await api.call("POST", "/api/v1/namespaces/default/events", event)
    _, same = await api.call("GET", "/apis/events.k8s.io/v1/namespaces/default/events/e")
    assert (same["note"], same["regarding"]["name"], same["apiVersion"]) == ("text", "p", "events.k8s.io/v1")
    path = "/api/v1/events?fieldSelector=involvedObject.name%3Dp,reason%3DProvisionNode"
    assert len((await api.call("GET", path))[1]["items"]) == 1


async def test_two_clusters_share_nothing_but_the_port(api: Api) -> None:
    other = api.server.add(Store("c2", now=NOW), token="other")
    await api.call("POST", CONFIG_MAPS_PATH, config_map())
    assert other.store.find(CONFIG_MAPS, "default", "cm") is None
    async with api.session.get(api.server.url("c2") + CONFIG_MAPS_PATH) as response:
        assert response.status == 401
    api.server.remove("c2")
    async with api.session.get(api.server.url("c2") + "/healthz") as response:
        assert response.status == 404


async def test_the_port_is_free_after_stop_even_with_open_watches() -> None:
    async with served() as api:
        watch = Watch(api, CONFIG_MAPS_PATH, resourceVersion="1")
        async with watch:
            port = api.server.port
            await asyncio.wait_for(api.server.stop(), 30)
            assert (await watch.next())["type"] == "END"
    again = SimServer(port=port)
    await again.start()
    await again.stop()


class TestFaults:
    """What the control endpoint and the `faults` of a cluster do to its clients."""

    async def test_the_next_requests_fail_as_often_as_told(self, api: Api) -> None:
        rule = {"code": 429, "next": 2, "retryAfterSeconds": 3, "verbs": ["list"], "resources": ["configmaps"]}
        code, _ = await api.control("PUT", "/c1/faults", {"rules": [rule]})
        assert code == 200
        assert (await api.call("GET", PODS_PATH))[0] == 200
        async with api.session.get(api.url(CONFIG_MAPS_PATH)) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "3")
        assert [(await api.call("GET", CONFIG_MAPS_PATH))[0] for _ in range(3)] == [429, 200, 200]
        assert api.cluster.counters.faults == 2

    async def test_a_share_of_requests_fails_by_counting(self, api: Api) -> None:
        await api.control("PUT", "/c1/faults", {"rules": [{"code": 500, "probability": 0.25}]})
        codes = [(await api.call("GET", CONFIG_MAPS_PATH))[0] for _ in range(8)]
        assert codes == [200, 200, 200, 500, 200, 200, 200, 500]

    async def test_a_seed_draws_the_same_lots_again(self, api: Api) -> None:
        async def draw() -> list[int]:
            rule = {"code": 503, "probability": 0.5, "seed": 7}
            await api.control("PUT", "/c1/faults", {"rules": [rule]})
            return [(await api.call("GET", CONFIG_MAPS_PATH))[0] for _ in range(12)]

        first = await draw()
        assert first == await draw()
        assert {200, 503} == set(first)

    async def test_an_answer_is_lost_after_the_effect(self, api: Api) -> None:
        await api.control("PUT", "/c1/faults", {"rules": [{"next": 1, "verbs": ["create"], "when": "lost"}]})
        with pytest.raises(aiohttp.ClientError):
            await api.call("POST", CONFIG_MAPS_PATH, config_map())
        assert api.store.find(CONFIG_MAPS, "default", "cm") is not None

    async def test_an_error_comes_after_the_effect(self, api: Api) -> None:
        await api.control("PUT", "/c1/faults", {"rules": [{"next": 1, "verbs": ["create"], "when": "after"}]})
        assert (await api.call("POST", CONFIG_MAPS_PATH, config_map()))[0] == 500
        assert api.store.find(CONFIG_MAPS, "default", "cm") is not None

    async def test_watches_are_dropped_now(self, api: Api) -> None:
        async with Watch(api, CONFIG_MAPS_PATH, resourceVersion=str(api.store.version)) as watch:
            await api.control("PUT", "/c1/faults", {"dropWatches": True})
            assert (await watch.next())["type"] == "END"
        assert (await api.call("GET", CONFIG_MAPS_PATH))[0] == 200

    async def test_watches_expire(self, api: Api) -> None:
        version = str(api.store.version - 1)
        await api.control("PUT", "/c1/faults", {"expireWatches": True})
        async with Watch(api, CONFIG_MAPS_PATH, resourceVersion=version) as watch:
            assert (await watch.next())["object"]["code"] == 410

    async def test_a_cluster_is_gone_and_comes_back_while_others_go_on(self, api: Api) -> None:
        api.server.add(Store("c2", now=NOW), token="other")
        async with Watch(api, CONFIG_MAPS_PATH, resourceVersion=str(api.store.version)) as watch:
            await api.control("PUT", "/c1/faults", {"gone": True})
            with pytest.raises(aiohttp.ClientError):
                await watch.next()
        for _ in range(2):
            with pytest.raises(aiohttp.ClientError):
                await api.call("GET", CONFIG_MAPS_PATH)
        async with api.session.get(api.server.url("c2") + "/healthz") as response:
            assert response.status == 200
        code, faults = await api.control("DELETE", "/c1/faults")
        assert (code, faults["gone"]) == (200, False)
        assert (await api.call("GET", CONFIG_MAPS_PATH))[0] == 200

    async def test_slow_answers(self, api: Api) -> None:
        await api.control("PUT", "/c1/faults", {"delayMilliseconds": 80})
        loop = asyncio.get_running_loop()
        started = loop.time()
        await api.call("GET", CONFIG_MAPS_PATH)
        assert loop.time() - started >= 0.075

    @pytest.mark.parametrize(
        "document, text",
        [
            ({"rules": [{"code": 200}]}, "rules[0].code"),
            ({"rules": [{"probability": 2}]}, "rules[0].probability"),
            ({"rules": [{"whne": "after"}]}, "unknown field 'whne'"),
            ({"rules": [{"when": "never"}]}, "rules[0].when"),
            ({"rules": {}}, "rules: must be a list"),
            ({"delayMilliseconds": -1}, "delayMilliseconds"),
            ({"slow": True}, "unknown field 'slow'"),
            ([], "must be an object"),
        ],
    )
    async def test_documents_that_make_no_sense(self, api: Api, document: Any, text: str) -> None:
        code, status = await api.control("PUT", "/c1/faults", document)
        assert (code, text in status["message"]) == (400, True), status

    async def test_control_wants_its_own_token(self, api: Api) -> None:
        async with api.session.get(f"{api.server.address}/control/clusters/c1/faults") as response:
            assert response.status == 401
        assert (await api.control("GET", "/nope/faults"))[0] == 404

    async def test_requests_are_counted(self, api: Api) -> None:
        await api.call("GET", CONFIG_MAPS_PATH)
        await api.call("GET", f"{CONFIG_MAPS_PATH}/nope")
        _, counters = await api.control("GET", "/c1/counters")
        assert {"verb": "list", "resource": "configmaps", "code": 200, "count": 1} in counters["requests"]
        assert {"verb": "get", "resource": "configmaps", "code": 404, "count": 1} in counters["requests"]
        assert sum(counters["latencyCounts"]) == 2
        _, listed = await api.control("GET", "")
        assert [c["name"] for c in listed["clusters"]] == ["c1"]
