"""A minimal Kubernetes API client for tests: blocking, standard library only, shows status and body as they are.

The project's own client is what the tests examine; this one is the ruler, so it shares no code with it.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

import yaml

Document = dict[str, Any]

# Plural and whether namespaced, of the kinds that tests use. Custom kinds are added by install_crds().
_BUILT_IN = {
    ("v1", "Namespace"): ("namespaces", False),
    ("v1", "Node"): ("nodes", False),
    ("v1", "Pod"): ("pods", True),
    ("v1", "ConfigMap"): ("configmaps", True),
    ("v1", "Event"): ("events", True),
    ("v1", "Service"): ("services", True),
    ("v1", "ServiceAccount"): ("serviceaccounts", True),
    ("v1", "ResourceQuota"): ("resourcequotas", True),
    ("apps/v1", "Deployment"): ("deployments", True),
    ("apps/v1", "ReplicaSet"): ("replicasets", True),
    ("apps/v1", "StatefulSet"): ("statefulsets", True),
    ("batch/v1", "Job"): ("jobs", True),
    ("coordination.k8s.io/v1", "Lease"): ("leases", True),
    ("scheduling.k8s.io/v1", "PriorityClass"): ("priorityclasses", False),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"): ("customresourcedefinitions", False),
}


@dataclass(frozen=True)
class Reply:
    """What the server answered. ``body`` is the decoded JSON object, or ``{}`` where it was none."""

    status: int
    body: Document
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.status < 300

    @property
    def reason(self) -> str:
        """The Status object's reason, e.g. ``Conflict``; empty for anything else."""
        return str(self.body.get("reason", "")) if self.body.get("kind") == "Status" else ""

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))

    @property
    def causes(self) -> list[Document]:
        details = self.body.get("details") or {}
        return cast(list[Document], details.get("causes") or [])

    def expect(self, *statuses: int) -> Document:
        """The body, if the status is one of these; else an AssertionError that shows what came."""
        assert self.status in statuses, f"HTTP {self.status} {self.reason}: {self.message or self.body}"
        return self.body


class KubeApi:
    """One API server. Safe to use from several threads: each has its own connection."""

    def __init__(self, server: str, token: str, ca: str | None = None) -> None:
        parts = urlsplit(server)
        self.server, self.token = server, token
        self._host, self._port, self._tls = parts.hostname or "127.0.0.1", parts.port, parts.scheme == "https"
        self._context = ssl.create_default_context(cafile=ca) if self._tls else None
        self._local = threading.local()
        self._kinds = dict(_BUILT_IN)

    def request(
        self,
        method: str,
        path: str,
        body: Document | None = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> Reply:
        """One request; the connection is kept and made anew once if the server has closed it meanwhile."""
        target = f"{path}?{urlencode(query)}" if query else path
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json"}
        if data is not None:
            headers["Content-Type"] = content_type
        for attempt in (1, 2):
            connection = self._connection(timeout)
            try:
                connection.request(method, target, data, headers)
                answer = connection.getresponse()
                text = answer.read()
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                self.close()
                if attempt == 2:
                    raise
            except OSError:
                self.close()
                raise
            else:
                return Reply(answer.status, _decode(text), dict(answer.getheaders()))
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            if self._tls:
                connection = http.client.HTTPSConnection(self._host, self._port, context=self._context)
            else:
                connection = http.client.HTTPConnection(self._host, self._port)
            self._local.connection = connection
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        return connection

    # --- objects -----------------------------------------------------------------------------------------------

    def learn(self, api_version: str, kind: str, plural: str, namespaced: bool) -> None:
        """Make a custom kind known."""
        self._kinds[api_version, kind] = (plural, namespaced)

    def path(self, api_version: str, kind: str, namespace: str | None = None, name: str | None = None) -> str:
        """Path of a collection, or of an object if ``name`` is given."""
        plural, namespaced = self._kinds[api_version, kind]
        parts = ["/api/v1" if api_version == "v1" else f"/apis/{api_version}"]
        if namespaced and namespace is not None:
            parts.append(f"namespaces/{namespace}")
        parts.append(plural)
        if name is not None:
            parts.append(name)
        return "/".join(parts)

    def path_of(self, obj: Document) -> str:
        meta = obj["metadata"]
        return self.path(obj["apiVersion"], obj["kind"], meta.get("namespace", "default"), meta["name"])

    def create(self, obj: Document) -> Reply:
        return self.request("POST", self.path_of(obj).rpartition("/")[0], obj)

    def get(self, obj: Document) -> Reply:
        return self.request("GET", self.path_of(obj))

    def apply(self, obj: Document, manager: str = "test", force: bool = False, subresource: str = "") -> Reply:
        """Server-side apply."""
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        path = self.path_of(obj) + (f"/{subresource}" if subresource else "")
        return self.request("PATCH", path, obj, "application/apply-patch+yaml", query)

    def merge(self, obj: Document, patch: Document, subresource: str = "") -> Reply:
        """JSON merge patch."""
        path = self.path_of(obj) + (f"/{subresource}" if subresource else "")
        return self.request("PATCH", path, patch, "application/merge-patch+json")

    def delete(self, obj: Document, **options: Any) -> Reply:
        """Delete with DeleteOptions given as keywords, e.g. ``preconditions={"uid": …}``."""
        return self.request("DELETE", self.path_of(obj), {"kind": "DeleteOptions", "apiVersion": "v1", **options})

    def list(self, api_version: str, kind: str, namespace: str | None = None, **query: str) -> list[Document]:
        reply = self.request("GET", self.path(api_version, kind, namespace), query=query)
        return cast(list[Document], reply.expect(200)["items"])


def from_kubeconfig(path: str) -> KubeApi:
    """A client for a kubeconfig's only cluster and token, as :mod:`tests.support.kube` writes them."""
    with open(path, encoding="utf-8") as file:
        config = yaml.safe_load(file)
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    return KubeApi(cluster["server"], user.get("token", ""), cluster.get("certificate-authority"))


def _decode(text: bytes) -> Document:
    try:
        body = json.loads(text)
    except ValueError:
        return {"text": text.decode(errors="replace")}
    return cast(Document, body) if isinstance(body, dict) else {"value": body}
