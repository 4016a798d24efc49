"""Which Kubernetes clusters the conformance tests run on, said in pytest's header.

``GPUFLEET_TEST_CLUSTERS`` is ``simulated`` (the default) or ``real`` (the default of ``make e2e``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.kubeapi import Document, KubeApi

if TYPE_CHECKING:
    from tests.support.kube import ControlPlane

CRDS = Path(__file__).resolve().parents[2] / "sim" / "crds"
_NAMED = ("simulated", "real")


@dataclass(frozen=True)
class Cluster:
    """One cluster under test. ``api`` has all rights, as has the kubeconfig; ``plane`` only where it is real."""

    kind: str
    name: str
    kubeconfig: Path
    api: KubeApi
    plane: ControlPlane | None = None


def chosen() -> str:
    """``simulated`` or ``real``."""
    default = "real" if os.environ.get("GPUFLEET_E2E") else "simulated"
    kind = os.environ.get("GPUFLEET_TEST_CLUSTERS") or default
    if kind not in _NAMED:
        raise ValueError(f"GPUFLEET_TEST_CLUSTERS={kind!r}: give {' or '.join(_NAMED)}")
    return kind


def crd_files() -> list[Path]:
    """The CustomResourceDefinitions of the job kinds."""
    return sorted(CRDS.glob("*.yaml"))


@contextmanager
def open_real(names: Sequence[str], nodes: Sequence[Document]) -> Iterator[dict[str, Cluster]]:
    """Real control planes of these names, each with these nodes and the CRDs of the job kinds."""
    from tests.support.kube import ClusterSpec, ControlPlanes

    with ControlPlanes([ClusterSpec(name, nodes) for name in names], crd_files()) as planes:
        yield {
            name: Cluster("real", name, plane.kubeconfig, plane.api, plane) for name, plane in planes.clusters.items()
        }
