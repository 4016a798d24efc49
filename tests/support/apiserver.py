"""The API server that the Kubernetes conformance tests run against, and documents to put on it."""

from __future__ import annotations

import contextlib
import copy
import secrets
from collections.abc import Iterator
from typing import Any, Protocol

from gpufleet.kube.access import read_kubeconfig
from tests.support import clusters
from tests.support.kube import gpu_node
from tests.support.kubeapi import Document, KubeApi

NODE = "gpu-1"


class ApiServer(Protocol):
    """One cluster with the node :data:`NODE`, with a garbage collector, and the means to disturb it."""

    name: str

    @property
    def admin(self) -> KubeApi:
        """A client with all rights that shares no code with the one under test. It blocks."""

    def access(self, token: str | None = None) -> dict[str, Any]:
        """An access description; ``token`` replaces the right one."""

    def interrupt(self) -> contextlib.AbstractContextManager[None]:
        """The server is gone while the context is open; afterwards older resourceVersions are expired."""


class RealApiServer:
    """kube-apiserver with etcd, controllers, scheduler and kwok."""

    name = "real"

    def __init__(self, cluster: clusters.Cluster) -> None:
        assert cluster.plane is not None
        self._cluster, self._plane = cluster, cluster.plane

    @property
    def admin(self) -> KubeApi:
        return self._cluster.api

    def access(self, token: str | None = None) -> dict[str, Any]:
        config = copy.deepcopy(read_kubeconfig(self.name, self._cluster.kubeconfig))
        if token is not None:
            config["users"][0]["user"]["token"] = token
        return {"inline": config}

    @contextlib.contextmanager
    def interrupt(self) -> Iterator[None]:
        self._plane.kill_api()
        try:
            yield
        finally:
            self._plane.start_api()


@contextlib.contextmanager
def running_apiserver() -> Iterator[ApiServer]:
    """The server of this session, see :func:`tests.support.clusters.chosen`."""
    if clusters.chosen() == "real":
        with clusters.open_real(["conformance"], [gpu_node(NODE)]) as opened:
            yield RealApiServer(opened["conformance"])
    else:
        from tests.support.simserver import SimApiServer

        with SimApiServer() as server:
            yield server


def new_namespace(server: ApiServer, prefix: str = "t") -> str:
    """Create a namespace of a new name."""
    name = f"{prefix}-{secrets.token_hex(4)}"
    server.admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}).expect(201)
    return name


def config_map(namespace: str, name: str, data: dict[str, str] | None = None, **metadata: Any) -> Document:
    """A ConfigMap document."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "data": data or {},
    }


def deployment(namespace: str, name: str, replicas: int = 0, image: str = "pause") -> Document:
    """A Deployment document; without replicas it makes no pods."""
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": image}]}},
        },
    }


def pod(name: str, **spec: Any) -> Document:
    """A Pod document in the namespace default that no scheduler feels responsible for."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"test": name}},
        "spec": {
            "schedulerName": "nobody",
            "containers": [{"name": "main", "image": "pause", "resources": {"requests": {"cpu": "1"}}}],
            **spec,
        },
    }


def widget_crd(group: str) -> Document:
    """A CustomResourceDefinition of the kind Widget with a status and a scale subresource."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": "Widget", "listKind": "WidgetList", "plural": "widgets", "singular": "widget"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                        },
                    },
                }
            ],
        },
    }
