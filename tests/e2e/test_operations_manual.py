"""The commands of docs/operations.md as they stand there, on a real API server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clusters import Cluster

ROOT = Path(__file__).resolve().parents[2]
MANUAL = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def commands(heading: str) -> list[str]:
    """Returns the shell blocks of a section, without what they are indented by."""
    section = re.split(r"^## ", MANUAL, flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(heading + "\n")]
    found = re.findall(r"^( *)```sh\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "deploy" / "kustomize", tmp_path / "deploy" / "kustomize")
    return tmp_path


def run(script: str, cluster: Cluster, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path, "KUBECONFIG": str(cluster.kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_install_and_install_again_with_another_setting(real_cluster: Cluster, checkout: Path) -> None:
    (install,) = commands("Install")
    run(install, real_cluster, checkout)
    overlay = checkout / "deploy" / "kustomize" / "overlays" / "production" / "kustomization.yaml"
    overlay.write_text(overlay.read_text(encoding="utf-8").replace("kafka-0.kafka:9093", "kafka-9.kafka:9093"))
    assert "job.batch/gpufleet-topics created" in run(install, real_cluster, checkout)


@pytest.mark.parametrize(
    ("account", "may", "may_not"),
    [
        ("gpufleet-inventory", "list nodes", "create deployments"),
        ("gpufleet-dispatcher", "create deployments", "list nodes"),
    ],
)
def test_register_a_cluster(real_cluster: Cluster, checkout: Path, account: str, may: str, may_not: str) -> None:
    assert real_cluster.plane is not None
    rights, kubeconfig, *_ = commands("Register a cluster")
    run(rights, real_cluster, checkout)
    kubeconfig = kubeconfig.replace("account=gpufleet-inventory", f"account={account}")
    run(kubeconfig.replace("https://idc.example.com:6443", real_cluster.plane.server), real_cluster, checkout)
    asked = f"kubectl --kubeconfig {account}/idc.yaml auth can-i"
    assert run(f"{asked} {may} --all-namespaces", real_cluster, checkout).strip() == "yes"
    assert run(f"{asked} {may_not} --all-namespaces || true", real_cluster, checkout).strip() == "no"


def test_the_services_are_given_the_kubeconfigs(real_cluster: Cluster, checkout: Path) -> None:
    _, _, secrets, *_ = commands("Register a cluster")
    for account in ("gpufleet-inventory", "gpufleet-dispatcher"):
        (checkout / account).mkdir()
        (checkout / account / "idc.yaml").write_text("{}")
    run("kubectl create namespace gpufleet --dry-run=client -o yaml | kubectl apply -f -", real_cluster, checkout)
    assert run(secrets, real_cluster, checkout).count("created") == 2
