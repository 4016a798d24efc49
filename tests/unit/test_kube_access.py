"""Access descriptions: what is used, and what a user reads when one is wrong."""

from __future__ import annotations

import base64
import copy
import os
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpufleet.kube import access as access_module
from gpufleet.kube.access import connect, select_context
from gpufleet.kube.errors import AccessError, ApiStatusError, Unreachable
from gpufleet.kube.resources import NODES
from gpufleet.model.log import ClusterAccess
from tests.support.scripted_api import Answer, ScriptedApi, kubeconfig, scripted_api, until

CONFIG = kubeconfig("https://127.0.0.1:1")


@pytest.fixture
async def api() -> AsyncIterator[ScriptedApi]:
    async with scripted_api() as server:
        server.answers += [Answer(body={}) for _ in range(20)]
        yield server


def write(path: Path, config: Any) -> Path:
    path.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    return path


async def token_seen(api: ScriptedApi, access: Any, **options: Any) -> str:
    async with await connect("c-idc", access, **options) as client:
        await client.get(NODES, "a")
    return api.asked[-1].headers["Authorization"]


async def test_every_form_reaches_the_server(api: ScriptedApi, tmp_path: Path) -> None:
    (tmp_path / "idc").mkdir()
    write(tmp_path / "config.yaml", api.kubeconfig)
    write(tmp_path / "idc" / "kubeconfig", api.kubeconfig)
    forms: list[tuple[Any, dict[str, Any]]] = [
        ({"inline": api.kubeconfig}, {}),
        ({"kubeconfig": str(tmp_path / "config.yaml")}, {}),
        ({"kubeconfig": "config.yaml", "context": "main"}, {"base_dir": tmp_path}),
        ({"secretRef": {"name": "idc"}}, {"secrets_dir": tmp_path}),
        (ClusterAccess(kubeconfig=str(tmp_path / "config.yaml")), {}),
        (ClusterAccess(secret_ref={"name": "idc", "namespace": "x"}), {"secrets_dir": tmp_path}),
    ]
    for form, options in forms:
        assert await token_seen(api, form, **options) == "Bearer secret"


async def test_the_named_context_is_used(api: ScriptedApi) -> None:
    config = copy.deepcopy(api.kubeconfig)
    config["contexts"].append({"name": "other", "context": {"cluster": "here", "user": "her"}})
    config["users"].append({"name": "her", "user": {"token": "hers"}})
    assert await token_seen(api, {"inline": config, "context": "other"}) == "Bearer hers"
    assert await token_seen(api, {"inline": config}) == "Bearer secret"


async def test_two_clusters_share_nothing(api: ScriptedApi) -> None:
    other = kubeconfig(api.url, token="other")
    async with await connect("a", {"inline": api.kubeconfig}) as a, await connect("b", {"inline": other}) as b:
        for client, token in ((a, "secret"), (b, "other"), (a, "secret")):
            await client.get(NODES, "x")
            assert api.asked[-1].headers["Authorization"] == f"Bearer {token}"


def without(*path: Any) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        for step in path[:-1]:
            config = config[step]
        del config[path[-1]]

    return change


def with_(value: Any, *path: Any) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        for step in path[:-1]:
            config = config[step]
        config[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (without("current-context"), "no current-context and access.context is not given; name one of .*: main"),
        (with_("nope", "current-context"), "has no context 'nope'; its contexts are main"),
        (without("contexts"), r"has no context 'main'; its contexts are \(it has none\)"),
        (with_("main", "contexts"), r"has no context 'main'; its contexts are \(it has none\)"),
        (with_(None, "contexts", 0, "context"), "context main is None; it must be a mapping"),
        (with_("there", "contexts", 0, "context", "cluster"), "no cluster 'there', which context main names; .*here"),
        (with_("you", "contexts", 0, "context", "user"), "no user 'you', which context main names; its users are me"),
        (without("clusters", 0, "cluster", "server"), "server of cluster here is None; it must start with https://"),
        (with_("127.0.0.1", "clusters", 0, "cluster", "server"), "is '127.0.0.1'; it must start with https://"),
        (with_("%%%=a", "clusters", 0, "cluster", "certificate-authority-data"), "certificate-authority"),
        (with_("bm90IGEgY2VydA==", "clusters", 0, "cluster", "certificate-authority-data"), "must be PEM"),
        (with_("/no/ca.crt", "clusters", 0, "cluster", "certificate-authority"), "does not exists?: /no/ca.crt"),
    ],
)
async def test_a_wrong_kubeconfig(tmp_path: Path, change: Callable[[Any], None], message: str) -> None:
    config = copy.deepcopy(CONFIG)
    change(config)
    path = write(tmp_path / "k.yaml", config)
    with pytest.raises(AccessError, match=message) as caught:
        await connect("c-idc", {"kubeconfig": str(path)})
    assert str(caught.value).startswith("cluster c-idc: ")


@pytest.mark.parametrize(
    "content, message",
    [
        ("a: [", r"k.yaml is not YAML at line \d, column \d: "),
        ("", "holds NoneType, not a kubeconfig; it must be a mapping"),
        ("- a", "holds list, not a kubeconfig"),
    ],
)
async def test_a_file_that_is_no_kubeconfig(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path / "k.yaml", content)
    with pytest.raises(AccessError, match=message):
        await connect("c-idc", {"kubeconfig": str(path)})


@pytest.mark.parametrize(
    "access, message",
    [
        ({}, "access gives none; give exactly one of kubeconfig, inline, secretRef, inCluster"),
        ({"kubeconfig": "a", "inCluster": True}, "gives kubeconfig and inCluster; give exactly one"),
        ({"simulated": {"nodes": 3}}, "access.simulated cannot be used by a client; use one of kubeconfig"),
        ({"kubeconfig": 5}, "access.kubeconfig is 5; give the path of a file"),
        ({"kubeconfig": "/no/such.yaml"}, "kubeconfig /no/such.yaml does not exist; correct access.kubeconfig"),
        ({"kubeconfig": "/"}, "kubeconfig / cannot be read"),
        ({"kubeconfig": "a", "context": 7}, "access.context is 7; give the name"),
        ({"secretRef": {"name": "../x"}}, "plain names without slashes"),
        ({"secretRef": {"name": "x", "key": ".."}}, "plain names without slashes"),
        ({"secretRef": "x"}, "plain names without slashes"),
        ({"secretRef": {"name": "x"}}, "x/kubeconfig does not exist"),
        ({"inCluster": True}, "access.inCluster needs a pod's service account"),
        ({"inline": "text"}, "access.inline holds str, not a kubeconfig"),
    ],
)
async def test_a_wrong_description(tmp_path: Path, access: dict[str, Any], message: str) -> None:
    with pytest.raises(AccessError, match=message) as caught:
        await connect("c-idc", access, secrets_dir=tmp_path)
    assert str(caught.value).startswith("cluster c-idc: ")


async def test_a_secret_without_a_folder() -> None:
    with pytest.raises(AccessError, match="needs a folder of secrets"):
        await connect("c-idc", {"secretRef": {"name": "x"}})


def test_relative_paths_start_from_the_kubeconfig(tmp_path: Path) -> None:
    config = copy.deepcopy(CONFIG)
    config["clusters"][0]["cluster"]["certificate-authority"] = "pki/ca.crt"
    config["users"][0]["user"] = {"client-key": "/abs/key", "tokenFile": "t", "exec": {"command": "./plugin"}}
    minimal = select_context("c", config, None, tmp_path, "k")
    assert minimal["clusters"][0]["cluster"]["certificate-authority"] == str(tmp_path / "pki/ca.crt")
    user = minimal["users"][0]["user"]
    assert (user["client-key"], user["tokenFile"]) == ("/abs/key", str(tmp_path / "t"))
    assert Path(user["exec"]["command"]) == tmp_path / "plugin"


def plugin(path: Path, body: str) -> dict[str, Any]:
    path.write_text(f"#!{sys.executable}\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    api_version = "client.authentication.k8s.io/v1"
    return {"apiVersion": api_version, "command": str(path), "interactiveMode": "Never"}


CREDENTIAL = """
import json, pathlib
count = pathlib.Path(__file__).with_suffix(".count")
n = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(n))
if n == 2:
    raise SystemExit("no ticket")
status = {"token": f"t{n}", "expirationTimestamp": "2020-01-01T00:00:00Z"}
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}))
"""


async def test_a_credential_plugin_is_run_again_also_after_it_failed(
    api: ScriptedApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_module, "REFRESH_SECONDS", 0.01)
    config = copy.deepcopy(api.kubeconfig)
    config["users"][0]["user"] = {"exec": plugin(tmp_path / "plugin", CREDENTIAL)}
    async with await connect("c", {"inline": config}) as client:
        await client.get(NODES, "x")
        assert api.asked[-1].headers["Authorization"] == "Bearer t1"
        configuration = client._transport._configuration
        await until(lambda: configuration.api_key["BearerToken"] == "Bearer t3", seconds=20)
        await client.get(NODES, "x")
        assert api.asked[-1].headers["Authorization"] >= "Bearer t3"
        refresher = client._refresher
    assert refresher is not None
    assert refresher.cancelled()


@pytest.mark.parametrize(
    "body, message",
    [
        ("raise SystemExit('not logged in')", "plugin '.*plugin' failed: exec: process returned 1. not logged in"),
        ("print('hello')", "failed: exec: failed to decode process output"),
        (None, "plugin '/no/plugin' failed: .*No such file"),
    ],
)
async def test_a_failing_plugin(tmp_path: Path, body: str | None, message: str) -> None:
    config = copy.deepcopy(CONFIG)
    execute = plugin(tmp_path / "plugin", body) if body else {"apiVersion": "x", "command": "/no/plugin"}
    config["users"][0]["user"] = {"exec": execute}
    with pytest.raises(AccessError, match=message):
        await connect("c-idc", {"inline": config})


async def test_a_token_file_is_read_again(api: ScriptedApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = copy.deepcopy(api.kubeconfig)
    config["users"][0]["user"] = {"tokenFile": "token"}
    token = write(tmp_path / "token", "old")
    path = write(tmp_path / "k.yaml", config)
    async with await connect("c", {"kubeconfig": str(path)}) as client:
        seen = []
        for content, pause in (("new", 60.0), ("new", 0.0), (None, 0.0), ("newer", 0.0)):
            monkeypatch.setattr(access_module, "TOKEN_FILE_SECONDS", pause)
            token.write_text(content) if content else token.unlink()
            await client.get(NODES, "x")
            seen.append(api.asked[-1].headers["Authorization"].removeprefix("Bearer "))
        assert seen == ["old", "new", "new", "newer"]


async def test_in_line_keys_are_not_left_on_disk(
    api: ScriptedApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trustme = pytest.importorskip("trustme")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    authority = trustme.CA()
    identity = authority.issue_cert("me@example.org")
    config = copy.deepcopy(CONFIG)

    def data(blob: Any) -> str:
        return base64.b64encode(blob.bytes()).decode()

    config["clusters"][0]["cluster"]["certificate-authority-data"] = data(authority.cert_pem)
    config["users"][0]["user"] = {
        "client-certificate-data": data(identity.cert_chain_pems[0]),
        "client-key-data": data(identity.private_key_pem),
    }
    async with await connect("c", {"inline": config}):
        assert os.listdir(tmp_path) == []
    assert "client-key-data" in config["users"][0]["user"]  # the caller's document is as it was


async def test_a_refusal_is_the_servers(api: ScriptedApi) -> None:
    api.answers.clear()
    api.answers.append(Answer(401, {"kind": "Status", "reason": "Unauthorized", "message": "no", "code": 401}))
    async with await connect("c", {"inline": api.kubeconfig}) as client:
        with pytest.raises(ApiStatusError) as caught:
            await client.get(NODES, "x")
    assert caught.value.unauthorized


async def test_a_proxy_is_taken_from_the_environment(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", api.url.replace("://", "://user:word@"))
    monkeypatch.setenv("no_proxy", "excepted.invalid")
    assert await token_seen(api, {"inline": kubeconfig("http://cluster.invalid")}) == "Bearer secret"
    asked = api.asked[-1]
    assert (asked.path, asked.headers["Host"]) == ("http://cluster.invalid/api/v1/nodes/a", "cluster.invalid")
    assert asked.headers["Proxy-Authorization"] == f"Basic {base64.b64encode(b'user:word').decode()}"
    with pytest.raises(Unreachable):
        await token_seen(api, {"inline": kubeconfig("http://excepted.invalid")})


async def test_the_proxy_of_the_kubeconfig_goes_first(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    config = kubeconfig("http://cluster.invalid")
    config["clusters"][0]["cluster"]["proxy-url"] = api.url
    assert await token_seen(api, {"inline": config}) == "Bearer secret"
    assert api.asked[-1].headers["Host"] == "cluster.invalid"


async def test_a_netrc_file_is_not_for_clusters(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NETRC", str(write(tmp_path / "netrc", "machine 127.0.0.1 login user password word")))
    assert await token_seen(api, {"inline": api.kubeconfig}) == "Bearer secret"
