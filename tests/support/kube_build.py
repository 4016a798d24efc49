"""Builds real control planes from one Go module: etcd, kube-apiserver, controllers, scheduler and kwok.

``tests/e2e/real/kube/go.mod`` and ``go.sum`` are the recipe. The first build takes some ten minutes on two cores;
afterwards the programs come from the cache.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.cache import build_once, cache_dir, digest, require

RECIPE = Path(__file__).resolve().parents[1] / "e2e" / "real" / "kube"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
# kwok does nothing without Stage documents; these come with its module.
STAGES = (
    "node/fast/node-initialize",
    "node/heartbeat-with-lease/node-heartbeat-with-lease",
    "pod/fast/pod-ready",
    "pod/general/pod-complete",
    "pod/fast/pod-delete",
    "pod/chaos/pod-container-running-failed",
)
# Part of the folder's name: raise it when the way of building changes.
_REVISION = b"1"


class BuildFailed(RuntimeError):
    """The Go build of the control planes failed."""


def programs() -> Path:
    """Folder with :data:`PROGRAMS` and ``kwok.yaml``, built if it is not there.

    ``KUBEBUILDER_ASSETS`` names a folder with ready programs instead. Raises ToolMissing without Go, BuildFailed.
    """
    ready = os.environ.get("KUBEBUILDER_ASSETS")
    if ready:
        missing = [name for name in (*PROGRAMS, "kwok.yaml") if not (Path(ready) / name).exists()]
        if missing:
            raise BuildFailed(f"KUBEBUILDER_ASSETS={ready} lacks {', '.join(missing)}")
        return Path(ready)
    return build_once(cache_dir() / "kube" / _folder_name(), _build)


def _folder_name() -> str:
    go = require("go", "building the Kubernetes control planes")
    toolchain = subprocess.run([go, "env", "GOVERSION", "GOARCH"], check=True, capture_output=True, env=_environment())
    recipe = [(RECIPE / name).read_bytes() for name in ("go.mod", "go.sum")]
    return f"{_module('k8s.io/kubernetes')['Version']}-{digest([*recipe, toolchain.stdout, _REVISION])}"


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        "GOWORK": "off",
        "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false",
    }


def _module(path: str) -> dict[str, str]:
    listed = _go("list", "-m", "-json", path)
    found: dict[str, str] = json.loads(listed)
    return found


def _go(*arguments: str, environment: dict[str, str] | None = None) -> str:
    go = require("go", "building the Kubernetes control planes")
    done = subprocess.run(
        [go, *arguments],
        cwd=RECIPE,
        env={**_environment(), **(environment or {})},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise BuildFailed(f"`go {arguments[0]}` failed:\n{done.stderr[-3000:]}")
    return done.stdout


def _build(folder: Path) -> None:
    version = _module("k8s.io/kubernetes")["Version"]
    sys.stderr.write(f"building the control planes of Kubernetes {version}: some ten minutes, once\n")
    _go(
        "install",
        "-tags",
        "grpcnotrace",
        "-ldflags",
        _linker_flags(version),
        "tool",
        environment={"GOBIN": str(folder)},
    )
    (folder / "server").rename(folder / "etcd")  # the module go.etcd.io/etcd/server/v3 installs under its last name
    for name in PROGRAMS:
        subprocess.run([folder / name, "--version"], check=True, capture_output=True)
    stages = Path(_module("sigs.k8s.io/kwok")["Dir"]) / "kustomize" / "stage"
    (folder / "kwok.yaml").write_text("\n---\n".join((stages / f"{name}.yaml").read_text() for name in STAGES))


def _linker_flags(version: str) -> str:
    minor = version.split(".")[1]
    stamped = {
        "gitMajor": "1",
        "gitMinor": minor,
        "gitVersion": version,
        "gitTreeState": "clean",
        "gitCommit": "unknown",
        "buildDate": "1970-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(
        ["-s", "-w", *(f"-X {package}.{key}={value}" for package in packages for key, value in stamped.items())]
    )
