"""Discovery documents: which groups, versions and resources a cluster serves, in the old and the aggregated form."""

from __future__ import annotations

from typing import Any

from sim.api.resources import Registry, Resource

Json = dict[str, Any]

VERSION: Json = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.3+gpufleet-sim",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "simulated",
}

_SUBRESOURCES: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    # name: group, version, kind (empty: the parent's), verbs
    "status": ("", "", "", ("get", "patch", "update")),
    "scale": ("autoscaling", "v1", "Scale", ("get", "patch", "update")),
    "binding": ("", "v1", "Binding", ("create",)),
    "eviction": ("policy", "v1", "Eviction", ("create",)),
    "log": ("", "", "", ("get",)),
}


def core_versions() -> Json:
    """GET /api."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def group_list(registry: Registry) -> Json:
    """GET /apis."""
    groups = [group(registry, name) for name in sorted(registry.group_versions()) if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(registry: Registry, name: str) -> Json | None:
    """GET /apis/<group>."""
    versions = registry.group_versions().get(name)
    if not versions:
        return None
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": name,
        "versions": listed,
        "preferredVersion": listed[0],
    }


def resource_list(registry: Registry, group_name: str, version: str) -> Json | None:
    """GET /api/v1 or /apis/<group>/<version>."""
    resources = _resources(registry, group_name, version)
    if not resources:
        return None
    listed: list[Json] = []
    for resource in resources:
        entry: Json = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": list(resource.verbs),
        }
        if resource.short_names:
            entry["shortNames"] = list(resource.short_names)
        if resource.categories:
            entry["categories"] = list(resource.categories)
        listed.append(entry)
        for name in resource.subresources:
            sub_group, sub_version, kind, verbs = _SUBRESOURCES[name]
            entry = {
                "name": f"{resource.plural}/{name}",
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": kind or resource.kind,
                "verbs": list(verbs),
            }
            if sub_version:
                entry.update(group=sub_group, version=sub_version)
            listed.append(entry)
    group_version = f"{group_name}/{version}" if group_name else version
    document: Json = {"kind": "APIResourceList", "groupVersion": group_version, "resources": listed}
    if group_name:
        document["apiVersion"] = "v1"
    return document


def aggregated(registry: Registry, *, core: bool) -> Json:
    """GET /api or /apis in the form `apidiscovery.k8s.io/v2`."""
    items = []
    for name, versions in sorted(registry.group_versions().items()):
        if (name == "") is not core:
            continue
        listed = [
            {
                "version": version,
                "resources": [_aggregated_resource(r) for r in _resources(registry, name, version)],
                "freshness": "Current",
            }
            for version in versions
        ]
        items.append({"metadata": {"name": name} if name else {}, "versions": listed})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _aggregated_resource(resource: Resource) -> Json:
    scope = "Namespaced" if resource.namespaced else "Cluster"
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    entry: Json = {
        "resource": resource.plural,
        "responseKind": kind,
        "scope": scope,
        "singularResource": resource.singular,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    subresources = []
    for name in resource.subresources:
        sub_group, sub_version, sub_kind, verbs = _SUBRESOURCES[name]
        sub = {"group": sub_group, "version": sub_version, "kind": sub_kind} if sub_kind else kind
        subresources.append({"subresource": name, "responseKind": sub, "verbs": list(verbs)})
    if subresources:
        entry["subresources"] = subresources
    return entry


def _resources(registry: Registry, group_name: str, version: str) -> list[Resource]:
    found = [r for r in registry if r.group == group_name and r.version == version]
    return sorted(found, key=lambda r: r.plural)
