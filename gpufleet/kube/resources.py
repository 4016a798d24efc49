"""Kinds and their paths: what the discovery of the API server says about a kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as a server serves it.

    ``api_version`` is "v1" or "group/version", ``plural`` the name in paths ("deployments"), ``subresources``
    the names after the slash ("status", "scale").
    """

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True
    subresources: frozenset[str] = frozenset()

    @property
    def group(self) -> str:
        """The API group; empty for the core group."""
        return self.api_version.rpartition("/")[0]

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of the collection, of one object, or of its subresource.

        Without a namespace the path of a namespaced kind means all namespaces, so ``name`` requires one.
        """
        parts = [group_version_path(self.api_version)]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        elif self.namespaced and name:
            raise ValueError(f"{self.kind} {name} is in a namespace, but none is given")
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


def group_version_path(api_version: str) -> str:
    """``/api/v1`` or ``/apis/group/version``."""
    if "/" in api_version:
        return "/apis/" + quote(api_version, safe="/")
    return "/api/" + quote(api_version, safe="")


# Kinds whose paths never change; these need no discovery.
NODES = Resource("v1", "Node", "nodes", namespaced=False, subresources=frozenset({"status"}))
PODS = Resource("v1", "Pod", "pods", subresources=frozenset({"status", "binding", "eviction"}))
EVENTS = Resource("v1", "Event", "events")
NAMESPACES = Resource("v1", "Namespace", "namespaces", namespaced=False, subresources=frozenset({"status"}))
CONFIG_MAPS = Resource("v1", "ConfigMap", "configmaps")
WELL_KNOWN: Mapping[tuple[str, str], Resource] = {
    (resource.api_version, resource.kind): resource for resource in (NODES, PODS, EVENTS, NAMESPACES, CONFIG_MAPS)
}


class _ApiResource(msgspec.Struct):
    name: str
    kind: str
    namespaced: bool = False


class _ApiResourceList(msgspec.Struct):
    resources: list[_ApiResource] = []


_discovery_decoder = msgspec.json.Decoder(_ApiResourceList)


def parse_discovery(api_version: str, body: bytes) -> dict[str, Resource]:
    """Kinds of one group and version from an ``APIResourceList``; raises msgspec.DecodeError."""
    listed = _discovery_decoder.decode(body).resources
    subresources: dict[str, set[str]] = {}
    for entry in listed:
        plural, slash, subresource = entry.name.partition("/")
        if slash:
            subresources.setdefault(plural, set()).add(subresource)
    return {
        entry.kind: Resource(
            api_version,
            entry.kind,
            entry.name,
            entry.namespaced,
            frozenset(subresources.get(entry.name, ())),
        )
        for entry in listed
        if "/" not in entry.name
    }


def identity(obj: Mapping[str, Any]) -> tuple[str, str, str, str | None]:
    """``(apiVersion, kind, name, namespace)`` of a manifest; ValueError says which of them is missing."""
    metadata = obj.get("metadata")
    if not isinstance(metadata, Mapping):
        raise ValueError("metadata is missing")
    found = (obj.get("apiVersion"), obj.get("kind"), metadata.get("name"))
    for path, value in zip(("apiVersion", "kind", "metadata.name"), found, strict=True):
        if not isinstance(value, str) or not value:
            raise ValueError(f"{path} must be a non-empty string, found {value!r}")
    namespace = metadata.get("namespace") or None
    if namespace is not None and not isinstance(namespace, str):
        raise ValueError(f"metadata.namespace must be a string, found {namespace!r}")
    return str(found[0]), str(found[1]), str(found[2]), namespace
