"""`gpufleet up` as a user runs it: what it prints works, Ctrl-C leaves nothing, a taken port is said.

`--single-process` is what the tests of commands run on.
"""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.commands import Up, gpufleet, gpufleet_program
from tests.support.manifests import MODEL_SERVER
from tests.support.system import cluster, deployment, pod, policy
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(180)

SERVICES = ("inventory", "scheduler", "dispatcher", "rescheduler")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    home = tmp_path_factory.mktemp("up")
    fleet = tmp_path_factory.mktemp("fleet") / "fleet.yaml"
    fleet.write_text(yaml.safe_dump_all([cluster("alpha"), cluster("beta"), MODEL_SERVER]), encoding="utf-8")
    running = Up.start(home, "--fleet", fleet)
    yield running
    running.close()


def test_it_prints_addresses_that_answer(up: Up) -> None:
    for name in SERVICES:
        base = up.named(name).split("/metrics")[0]
        with urllib.request.urlopen(f"{base}/readyz", timeout=30) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(f"{base}/metrics", timeout=30) as answer:
            assert f"gpufleet_{name}".encode() in answer.read()
    host, _, port = up.bootstrap.partition(":")
    socket.create_connection((host, int(port)), timeout=30).close()
    assert Path(up.named("logs")).is_dir()
    services = [argument for name in SERVICES for argument in ("--service", up.named(name).split("/metrics")[0])]

    def healthy() -> bool:  # a member of a group that is ready has yet to claim what it is given
        done = gpufleet("doctor", *services, kafka=up.bootstrap)
        return (done.code, done.err) == (0, "") and "FAIL" not in done.out

    wait_for(healthy, "the doctor to be content")


def test_kubectl_works_with_its_kubeconfig(up: Up) -> None:
    nodes = json.loads(up.kubectl("alpha", "get", "nodes", "-o", "json"))
    assert len(nodes["items"]) == 2
    assert "Ready" in up.kubectl("beta", "get", "nodes")


def test_a_workload_is_placed_and_kubectl_sees_its_pods(up: Up) -> None:
    servers = policy("servers", "beta", namespace="default")
    servers["spec"]["resourceSelectors"] = [{"apiVersion": "serving.example.com/v1", "kind": "ModelServer"}]
    rules = [policy("all", "alpha", "beta", namespace="default"), servers]
    documents = yaml.safe_dump_all([*rules, _web(), _server()])
    done = gpufleet("apply", "-f", "-", "--wait", stdin=documents, kafka=up.bootstrap)
    assert done.code == 0, done.err
    assert "default/Deployment/web: Scheduled, 4 of 4 placed: alpha=2, beta=2; 4 ready" in done.out
    assert "default/ModelServer.serving.example.com/llm: Scheduled, 1 of 1 placed: beta=1; 1 ready" in done.out
    shown = ("get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}")
    wait_for(lambda: up.kubectl("alpha", *shown) == "2", "the Deployment of alpha to say that two are ready")


def test_another_one_on_its_port_says_that_it_is_taken(up: Up) -> None:
    port = up.bootstrap.rpartition(":")[2]
    done = gpufleet_program("up", "--port", port)
    assert done.code == 3
    assert f"error: port {port} on 127.0.0.1 is taken" in done.err


def test_ctrl_c_stops_everything_and_leaves_nothing(up: Up) -> None:
    assert len(up.left()) > 6  # the folder and the processes
    assert up.interrupt() == 0
    wait_for(lambda: not up.left(), "nothing to be left")


def test_ctrl_c_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    up = Up.begin(home)
    try:
        wait_for(lambda: "services started" in up.errors(), "the processes to be there")
        assert up.left()
        assert up.interrupt() == 0
        wait_for(lambda: not up.left(), "nothing to be left")
    finally:
        up.close()


def _server() -> dict[str, object]:
    metadata = {"name": "llm", "namespace": "default"}
    spec = {"replicas": 1, "template": {"spec": pod()}}
    return {"apiVersion": "serving.example.com/v1", "kind": "ModelServer", "metadata": metadata, "spec": spec}


def _web() -> dict[str, object]:
    return deployment("web", 4, namespace="default")
