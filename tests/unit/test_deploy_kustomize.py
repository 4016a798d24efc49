"""The kustomize bases and overlays, as kubectl builds them: valid objects, settings that exist, no right too many."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpufleet.bus.settings import KafkaSettings
from gpufleet.cli.reference.settings import classes, variables
from gpufleet.cli.system import SERVICES
from gpufleet.model import kinds
from services.inventory.core.objects import STOCK_CONFIGMAP
from tests.support.kubeschema import problems

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "kustomize"
PATHS = ("base", "member", "overlays/production")
CONTROL = ("base", "overlays/production")
KUBECTL = Path(sys.executable).parent / "kubectl"
Json = dict[str, Any]


@cache
def built(path: str) -> tuple[Json, ...]:
    done = subprocess.run([KUBECTL, "kustomize", FOLDER / path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(path: str, *wanted: str) -> list[Json]:
    return [obj for obj in built(path) if obj["kind"] in wanted]


def workloads(path: str) -> list[Json]:
    return of_kind(path, "Deployment", "Job")


def container(workload: Json) -> Json:
    (found,) = workload["spec"]["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize("path", PATHS)
def test_objects_are_what_kubernetes_knows(path: str) -> None:
    assert {obj["kind"] + "/" + obj["metadata"]["name"]: p for obj in built(path) if (p := problems(obj))} == {}


def test_the_check_of_objects_finds_mistakes() -> None:
    (wrong,) = [obj for obj in of_kind("base", "Deployment") if obj["metadata"]["name"] == "gpufleet-scheduler"]
    wrong = yaml.safe_load(yaml.safe_dump(wrong))
    wrong["spec"]["replica"] = 2
    wrong["spec"]["replicas"] = "2"
    del wrong["spec"]["template"]["spec"]["containers"][0]["name"]
    found = "\n".join(problems(wrong))
    for part in ("spec.replica: no such field", "spec.replicas: '2' is no int", "`name`"):
        assert part in found


@pytest.mark.parametrize("path", CONTROL)
def test_every_service_is_there_with_everything_that_belongs_to_it(path: str) -> None:
    for kind in ("Deployment", "Service", "PodDisruptionBudget", "ServiceAccount"):
        names = {obj["metadata"]["name"] for obj in of_kind(path, kind)}
        assert {f"gpufleet-{service}" for service in SERVICES} <= names, kind
    for deployment in of_kind(path, "Deployment"):
        name = deployment["metadata"]["name"]
        assert container(deployment)["command"] == [name]
        assert deployment["spec"]["replicas"] >= 2, "one may be evicted"
        assert deployment["spec"]["template"]["spec"]["serviceAccountName"] == name
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        for kind in ("Service", "PodDisruptionBudget"):
            (other,) = [obj for obj in of_kind(path, kind) if obj["metadata"]["name"] == name]
            selector = other["spec"]["selector"]
            assert selector.get("matchLabels", selector).items() <= labels.items()


@pytest.mark.parametrize("path", CONTROL)
def test_probes_ask_what_the_services_answer(path: str) -> None:
    for deployment in of_kind(path, "Deployment"):
        found = container(deployment)
        assert found["ports"] == [{"name": "http", "containerPort": 8080}]
        probes = {name: found[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
        assert probes == {
            "startup": {"path": "/livez", "port": "http"},
            "liveness": {"path": "/livez", "port": "http"},
            "readiness": {"path": "/readyz", "port": "http"},
        }


@pytest.mark.parametrize("path", CONTROL)
def test_pods_may_do_nothing_that_they_need_not(path: str) -> None:
    for workload in workloads(path):
        pod = workload["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        context = container(workload)["securityContext"]
        assert context == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"requests", "limits"} <= container(workload)["resources"].keys()
        assert {"name": "tmp", "mountPath": "/tmp"} in container(workload)["volumeMounts"]
    assert of_kind(path, "ClusterRole", "Role") == [], "the control cluster gives no rights"


def test_a_pod_has_time_to_stop() -> None:
    from gpufleet.bus import runner

    needed = runner._FINISH_TIMEOUT + runner._FLUSH_TIMEOUT
    for deployment in of_kind("base", "Deployment"):
        assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 2 * needed


@pytest.mark.parametrize("path", CONTROL)
def test_images_have_a_version_and_no_registry(path: str) -> None:
    for workload in workloads(path):
        assert re.fullmatch(r"gpufleet:\d+\.\d+\.\d+", container(workload)["image"])


@pytest.mark.parametrize("path", CONTROL)
def test_settings_exist_and_are_valid(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (config,) = of_kind(path, "ConfigMap")
    assert [name for name in config["data"] if name not in variables()] == []
    for workload in workloads(path):
        assert container(workload)["envFrom"] == [{"configMapRef": {"name": config["metadata"]["name"]}}]
    for name, value in config["data"].items():
        monkeypatch.setenv(name, value)
    for cls in classes().values():
        cls()
    assert str(classes()["process"]().model_dump()["http_port"]) == config["data"]["GPUFLEET_HTTP_PORT"]


@pytest.mark.parametrize("path", CONTROL)
def test_files_that_settings_name_are_mounted(path: str) -> None:
    (config,) = of_kind(path, "ConfigMap")
    for workload in workloads(path):
        service = workload["metadata"]["name"].removeprefix("gpufleet-")
        mounts = {m["mountPath"]: m["name"] for m in container(workload)["volumeMounts"]}
        volumes = {v["name"] for v in workload["spec"]["template"]["spec"]["volumes"]}
        assert set(mounts.values()) == volumes
        for name, value in config["data"].items():
            theirs = any(name.startswith(f"GPUFLEET_{other.upper()}_") for other in SERVICES if other != service)
            if value.startswith("/") and not theirs:
                assert any(value == mount or value.startswith(f"{mount}/") for mount in mounts), f"{service}: {name}"


def test_the_overlay_is_a_secure_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    (config,) = of_kind("overlays/production", "ConfigMap")
    for name, value in config["data"].items():
        monkeypatch.setenv(name, value)
    kafka = KafkaSettings()
    assert kafka.uses_tls
    assert kafka.uses_sasl
    assert len(kafka.servers) == kafka.replication_factor == 3


# -- rights in member clusters -----------------------------------------------------------------------------------------

# Plurals that discovery would tell; the kinds are the code's.
PLURALS = {
    "CloneSet": "clonesets", "ConfigMap": "configmaps", "CronJob": "cronjobs", "Deployment": "deployments",
    "Job": "jobs", "MPIJob": "mpijobs", "PersistentVolumeClaim": "persistentvolumeclaims", "Pod": "pods",
    "PyTorchJob": "pytorchjobs", "RayCluster": "rayclusters", "RayJob": "rayjobs", "Secret": "secrets",
    "ServiceAccount": "serviceaccounts", "SparkApplication": "sparkapplications", "StatefulSet": "statefulsets",
    "TFJob": "tfjobs", "Workflow": "workflows",
}  # fmt: skip
READ = {"get", "list", "watch"}
WRITE = {"get", "list", "watch", "create", "patch", "delete"}


def rights(account: str) -> dict[tuple[str, str, str], set[str]]:
    """Returns verbs by (namespace or empty, API group, resource or resource/name) of an account in `member`."""
    found: dict[tuple[str, str, str], set[str]] = {}
    for binding in of_kind("member", "ClusterRoleBinding", "RoleBinding"):
        if account not in {subject["name"] for subject in binding["subjects"]}:
            continue
        where = binding["metadata"].get("namespace", "")
        (role,) = [
            r
            for r in of_kind("member", binding["roleRef"]["kind"])
            if r["metadata"]["name"] == binding["roleRef"]["name"] and r["metadata"].get("namespace", "") == where
        ]
        for rule in role["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for name in rule.get("resourceNames", [""]):
                        key = (where, group, f"{resource}/{name}" if name else resource)
                        found.setdefault(key, set()).update(rule["verbs"])
    return found


def test_inventory_reads_what_it_watches_and_writes_nothing() -> None:
    namespace, name = STOCK_CONFIGMAP
    assert rights("gpufleet-inventory") == {
        ("", "", "nodes"): READ,
        ("", "", "pods"): READ,
        ("", "", "namespaces"): READ,
        ("", "", "events"): READ,
        ("", "", "resourcequotas"): READ,
        (namespace, "", f"configmaps/{name}"): READ,
    }


def test_the_dispatcher_writes_the_kinds_that_gpufleet_knows_and_fences() -> None:
    expected = {("", "", "configmaps"): WRITE, ("", "", "namespaces"): {"get", "create", "patch"}}
    for spec in kinds.known():
        for version in spec.api_versions:
            expected["", version.rpartition("/")[0], PLURALS[spec.kind]] = WRITE
    assert rights("gpufleet-dispatcher") == expected


def test_the_control_cluster_may_be_a_member_too() -> None:
    """What both name is the same object: applying one after the other takes nothing away, no label of the namespace."""
    control, member = (
        {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]): o for o in built(path)}
        for path in ("base", "member")
    )
    both = control.keys() & member.keys()
    assert {kind for kind, _, _ in both} == {"Namespace", "ServiceAccount"}
    assert [key for key in sorted(both, key=str) if control[key] != member[key]] == []


def test_accounts_of_bindings_exist() -> None:
    accounts = {(a["metadata"]["namespace"], a["metadata"]["name"]) for a in of_kind("member", "ServiceAccount")}
    for binding in of_kind("member", "ClusterRoleBinding", "RoleBinding"):
        for subject in binding["subjects"]:
            assert (subject["namespace"], subject["name"]) in accounts
