"""What the client sends, and what it makes of answers that the real server gives rarely."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from gpufleet.kube import transport
from gpufleet.kube.client import DISCOVERY_HOLD_SECONDS, KubeClient
from gpufleet.kube.errors import ApiStatusError, BadAnswer, NotServed, Unreachable
from gpufleet.kube.resources import CONFIG_MAPS, NODES, PODS, Resource
from tests.support.scripted_api import Answer, ScriptedApi, scripted_api, scripted_client, status, until

APPS = {
    "resources": [
        {"name": "deployments", "kind": "Deployment", "namespaced": True},
        {"name": "deployments/status", "kind": "Deployment", "namespaced": True},
        {"name": "deployments/scale", "kind": "Scale", "namespaced": True},
    ]
}
DEPLOYMENT = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n"}}


@pytest.fixture
async def api() -> AsyncIterator[ScriptedApi]:
    async with scripted_api() as server:
        yield server


@pytest.fixture
async def client(api: ScriptedApi) -> AsyncIterator[KubeClient]:
    async with scripted_client(api, timeout=5) as opened:
        yield opened


async def test_get_sends_the_token_and_returns_the_object(api: ScriptedApi, client: KubeClient) -> None:
    api.answers.append(Answer(body={"metadata": {"name": "a"}}))
    assert await client.get(PODS, "a", "n") == {"metadata": {"name": "a"}}
    asked = api.asked[0]
    assert (asked.method, asked.path) == ("GET", "/api/v1/namespaces/n/pods/a")
    assert asked.headers["Authorization"] == "Bearer secret"
    assert asked.headers["User-Agent"].startswith("gpufleet")


async def test_apply_is_a_patch_of_the_apply_type(api: ScriptedApi, client: KubeClient) -> None:
    api.answers += [Answer(body=APPS), Answer(201, DEPLOYMENT)]
    await client.apply(DEPLOYMENT, field_manager="m", force=True)
    asked = api.asked[1]
    assert (asked.method, asked.path) == ("PATCH", "/apis/apps/v1/namespaces/n/deployments/d")
    assert asked.query == {"fieldManager": "m", "force": "true"}
    assert asked.headers["Content-Type"] == "application/apply-patch+yaml"
    assert asked.json == DEPLOYMENT


async def test_create_without_a_name_posts_to_the_collection(api: ScriptedApi, client: KubeClient) -> None:
    api.answers += [Answer(201, {}), Answer(201, {})]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "p-", "namespace": "n"}}
    await client.create(pod, field_manager="m")
    assert (api.asked[0].path, api.asked[0].json) == ("/api/v1/namespaces/n/pods", pod)
    await client.create_subresource(PODS, "p", "binding", {"kind": "Binding"}, "n")
    assert (api.asked[1].path, api.asked[1].json) == ("/api/v1/namespaces/n/pods/p/binding", {"kind": "Binding"})
    with pytest.raises(ValueError, match=r"metadata\.name must be"):
        await client.create({**pod, "metadata": {"namespace": "n"}}, field_manager="m")


async def test_patches_and_status(api: ScriptedApi, client: KubeClient) -> None:
    api.answers += [Answer(body={}), Answer(body={})]
    await client.patch_merge(NODES, "n1", {"spec": {"unschedulable": True}}, field_manager="m")
    await client.patch_status(NODES, "n1", {"phase": "x"}, field_manager="m")
    merge, status_patch = api.asked
    assert merge.headers["Content-Type"] == "application/merge-patch+json"
    assert merge.path == "/api/v1/nodes/n1"
    assert (status_patch.path, status_patch.json) == ("/api/v1/nodes/n1/status", {"status": {"phase": "x"}})


async def test_delete_sends_its_preconditions(api: ScriptedApi, client: KubeClient) -> None:
    api.answers += [Answer(body={}), Answer(body={})]
    await client.delete(PODS, "a", "n", uid="u", resource_version="5", propagation_policy="Foreground")
    await client.delete(PODS, "a", "n", grace_period_seconds=0)
    assert api.asked[0].json["preconditions"] == {"uid": "u", "resourceVersion": "5"}
    assert api.asked[0].json["propagationPolicy"] == "Foreground"
    assert "preconditions" not in api.asked[1].json
    assert api.asked[1].json["gracePeriodSeconds"] == 0


async def test_names_and_selectors_are_escaped_once(api: ScriptedApi, client: KubeClient) -> None:
    api.answers += [Answer(body={}), Answer(body={"metadata": {"resourceVersion": "1"}, "items": None})]
    await client.get(PODS, "a b/%2F", "n")
    await client.list(PODS, label_selector="a in (b,c),d!=e")
    assert api.asked[0].path == "/api/v1/namespaces/n/pods/a%20b%2F%252F"
    assert api.asked[1].query["labelSelector"] == "a in (b,c),d!=e"


async def test_list_follows_the_pages(api: ScriptedApi, client: KubeClient) -> None:
    api.answers += [
        Answer(body={"metadata": {"resourceVersion": "7", "continue": "t"}, "items": [{"metadata": {"name": "a"}}]}),
        Answer(body={"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "b"}}]}),
    ]
    listing = await client.list(CONFIG_MAPS, "n", page_size=1)
    assert listing.resource_version == "7"
    assert [(i["metadata"]["name"], i["kind"], i["apiVersion"]) for i in listing.items] == [
        ("a", "ConfigMap", "v1"),
        ("b", "ConfigMap", "v1"),
    ]
    assert [asked.query for asked in api.asked] == [{"limit": "1"}, {"limit": "1", "continue": "t"}]


async def test_an_expired_continue_token_starts_again_without_pages(api: ScriptedApi, client: KubeClient) -> None:
    first = {"metadata": {"resourceVersion": "7", "continue": "t"}, "items": [{"metadata": {"name": "a"}}]}
    api.answers += [
        Answer(body=first),
        Answer(410, status(410, "Expired")),
        Answer(body={"metadata": {"resourceVersion": "9"}, "items": [{"metadata": {"name": "c"}}]}),
    ]
    listing = await client.list(CONFIG_MAPS, page_size=1)
    assert (listing.resource_version, [i["metadata"]["name"] for i in listing.items]) == ("9", ["c"])
    assert api.asked[2].query == {}


async def test_discovery_is_asked_once_and_again_after_a_miss(api: ScriptedApi) -> None:
    now = [0.0]
    async with scripted_client(api, timeout=5) as opened:
        client = KubeClient("c-test", opened._transport, clock=lambda: now[0])
        api.answers += [Answer(body=APPS)]
        found = await asyncio.gather(*(client.resource_for("apps/v1", "Deployment") for _ in range(3)))
        assert set(found) == {Resource("apps/v1", "Deployment", "deployments", True, frozenset({"status", "scale"}))}
        with pytest.raises(NotServed, match=r"c-test does not serve DaemonSet in apps/v1"):
            await client.resource_for("apps/v1", "DaemonSet")
        assert len(api.asked) == 1
        now[0] += DISCOVERY_HOLD_SECONDS
        more = {"resources": [*APPS["resources"], {"name": "daemonsets", "kind": "DaemonSet", "namespaced": True}]}
        api.answers += [Answer(body=more)]
        assert (await client.resource_for("apps/v1", "DaemonSet")).plural == "daemonsets"
        assert len(api.asked) == 2


async def test_served_asks_anew(api: ScriptedApi, client: KubeClient) -> None:
    api.answers += [Answer(body=APPS), Answer(body={"resources": []}), Answer(404, "404 page not found")]
    assert set(await client.served("apps/v1")) == {"Deployment"}
    assert (await client.resource_for("apps/v1", "Deployment")).plural == "deployments"
    for _ in range(2):
        assert await client.served("apps/v1") == {}
        with pytest.raises(NotServed):
            await client.resource_for("apps/v1", "Deployment")
    assert len(api.asked) == 3


async def test_a_kind_that_vanishes_is_not_served(api: ScriptedApi, client: KubeClient) -> None:
    api.answers += [
        Answer(body=APPS),
        Answer(404, status(404, "NotFound", "the server could not find the requested resource")),
    ]
    with pytest.raises(NotServed):
        await client.apply(DEPLOYMENT, field_manager="m")
    with pytest.raises(NotServed):
        await client.resource_for("apps/v1", "Deployment")  # held for a while, but not taken from before
    with pytest.raises(NotServed):
        await client.resource_for("batch/v1", "Job")  # the script is empty: "404 page not found"


@pytest.mark.parametrize(
    "answer, predicates",
    [
        (Answer(409, status(409, "AlreadyExists")), {"conflict", "already_exists"}),
        (Answer(409, status(409, "Conflict")), {"conflict", "stale"}),
        (
            Answer(409, status(409, "Conflict", causes=[{"reason": "FieldManagerConflict", "field": ".spec"}])),
            {"conflict", "field_conflict"},
        ),
        (Answer(404, status(404, "NotFound", name="a", kind="pods")), {"not_found"}),
        (Answer(404, status(404, "NotFound", name="n", kind="namespaces")), {"not_found", "namespace_missing"}),
        (Answer(403, status(403, "Forbidden")), {"forbidden"}),
        (
            Answer(403, status(403, "Forbidden", causes=[{"reason": "NamespaceTerminating"}])),
            {"forbidden", "namespace_terminating"},
        ),
        (Answer(401, status(401, "Unauthorized")), {"unauthorized"}),
        (Answer(422, status(422, "Invalid")), {"invalid"}),
        (Answer(422, status(422, "Invalid", causes=[{"field": "metadata.uid"}])), {"stale"}),
        (Answer(500, status(500, "", ".spec.replica: field not declared in schema")), {"invalid"}),
        (Answer(500, "Internal Server Error"), {"unavailable"}),
        (Answer(400, status(400, "BadRequest")), {"invalid"}),
        (Answer(410, status(410, "Expired")), {"expired"}),
        (Answer(429, status(429, "TooManyRequests")), {"throttled"}),
        (Answer(500, status(500, "InternalError")), {"unavailable"}),
        (Answer(503, "upstream is away"), {"unavailable"}),
        (Answer(501, status(501, "NotImplemented")), set()),
    ],
)
async def test_predicates(api: ScriptedApi, client: KubeClient, answer: Answer, predicates: set[str]) -> None:
    api.answers.append(answer)
    with pytest.raises(ApiStatusError) as caught:
        await client.get(PODS, "a", "n")
    every = {
        "conflict", "already_exists", "field_conflict", "stale", "not_found", "namespace_missing",
        "namespace_terminating", "unauthorized", "forbidden", "invalid", "expired", "throttled", "unavailable",
    }  # fmt: skip
    assert {name for name in every if getattr(caught.value, name)} == predicates
    assert caught.value.status == answer.status
    assert str(caught.value).startswith("GET /api/v1/namespaces/n/pods/a: ")


@pytest.mark.parametrize(
    "answer, seconds",
    [
        (Answer(429, "busy", {"Retry-After": "3"}), 3.0),
        (Answer(429, status(429, "TooManyRequests", retryAfterSeconds=2)), 2.0),
        (Answer(503, "busy", {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}), None),
        (Answer(503, "busy"), None),
    ],
)
async def test_retry_after(api: ScriptedApi, client: KubeClient, answer: Answer, seconds: float | None) -> None:
    api.answers.append(answer)
    with pytest.raises(ApiStatusError) as caught:
        await client.get(NODES, "a")
    assert caught.value.retry_after == seconds


async def test_causes_are_kept(api: ScriptedApi, client: KubeClient) -> None:
    cause = {"reason": "FieldValueInvalid", "message": "must be positive", "field": "spec.replicas"}
    api.answers.append(Answer(422, status(422, "Invalid", "Deployment is invalid", causes=[cause])))
    with pytest.raises(ApiStatusError, match="Deployment is invalid") as caught:
        await client.get(NODES, "a")
    assert [c._asdict() for c in caught.value.causes] == [cause]


@pytest.mark.parametrize("body", ["", "<html>", "[1]", '{"metadata": ', "[" * 100_000])
async def test_an_answer_that_is_no_object(api: ScriptedApi, client: KubeClient, body: str) -> None:
    api.answers += [Answer(200, body), Answer(200, body)]
    with pytest.raises(BadAnswer, match="c-test: GET /api/v1/nodes/a"):
        await client.get(NODES, "a")
    with pytest.raises(BadAnswer):
        await client.list(NODES)


async def test_no_answer_is_unreachable(api: ScriptedApi, client: KubeClient) -> None:
    api.answers += [Answer(then="abort"), Answer(then="abort")]  # aiohttp tries a GET twice
    with pytest.raises(Unreachable, match="GET /api/v1/nodes/a"):
        await client.get(NODES, "a")
    api.answers.append(Answer(wait=asyncio.Event()))
    with pytest.raises(Unreachable, match=r"timed out|[Tt]imeout"):
        await client.get(NODES, "a", timeout=0.05)


async def test_a_refused_connection_is_unreachable() -> None:
    async with scripted_api() as gone:
        pass
    async with scripted_client(gone) as client:
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1"):
            await client.get(NODES, "a")


async def test_the_pool_is_bounded(api: ScriptedApi) -> None:
    gate = asyncio.Event()
    api.answers += [Answer(body={}, wait=gate) for _ in range(4)]
    async with scripted_client(api, pool_size=2) as client, asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(client.get(NODES, "a"))
        await until(lambda: len(api.asked) == 2)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(api.asked) == 2
        gate.set()
    assert len(api.asked) == 4


@pytest.mark.parametrize(
    "obj, complaint",
    [
        ({}, "metadata is missing"),
        ({"metadata": {}}, "apiVersion must be"),
        ({"apiVersion": "v1", "metadata": {}}, "kind must be"),
        ({"apiVersion": "v1", "kind": "Pod", "metadata": {}}, "metadata.name must be"),
        ({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}, "needs metadata.namespace"),
        ({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": 3}}, "must be a string"),
    ],
)
async def test_a_manifest_without_identity_is_not_sent(
    api: ScriptedApi, client: KubeClient, obj: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        await client.apply(obj, field_manager="m")
    assert not api.asked


async def test_incarnation(api: ScriptedApi, client: KubeClient) -> None:
    api.answers += [Answer(body={"metadata": {"uid": "u-1"}}), Answer(body={"metadata": {}})]
    assert await client.incarnation() == "u-1"
    with pytest.raises(BadAnswer, match="kube-system has no uid"):
        await client.incarnation()
    assert api.asked[0].path == "/api/v1/namespaces/kube-system"


class Chunks:
    """A response whose body arrives in these pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.content = self

    async def iter_any(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


@pytest.mark.parametrize(
    "pieces, lines",
    [
        ((b"a\nb\n",), [b"a", b"b"]),
        ((b"a", b"\n"), [b"a"]),
        ((b"a\nb", b"c", b"d\ne\n"), [b"a", b"bcd", b"e"]),
        ((b"a\n\n", b"\nb\n"), [b"a", b"b"]),
        ((b"a\nb", b"\nc", b"\n \n"), [b"a", b"b", b"c", b" "]),
        ((), []),
    ],
)
async def test_lines_across_pieces(client: KubeClient, pieces: tuple[bytes, ...], lines: list[bytes]) -> None:
    found = [line async for line in client._transport._lines(cast("Any", Chunks(*pieces)), "WATCH /x")]
    assert found == lines


async def test_a_line_without_an_end(client: KubeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = client._transport._lines(cast("Any", Chunks(b"a\nb", b"c")), "WATCH /x")
    assert await anext(lines) == b"a"
    with pytest.raises(Unreachable, match="broken off in the middle of an event"):
        await anext(lines)
    monkeypatch.setattr(transport, "MAX_LINE_BYTES", 10)
    with pytest.raises(BadAnswer, match="more than 10 bytes"):
        await anext(client._transport._lines(cast("Any", Chunks(b"12345", b"67890", b"1")), "WATCH /x"))
