"""Which kinds a cluster serves: the builtin ones, and those that CustomResourceDefinitions add."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Resource:
    """One served resource: a plural in one version of a group.

    `subresources` are names such as `status`, `scale`, `binding`. `custom` marks resources of a
    CustomResourceDefinition; several versions of one share their storage (`group_resource`).
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    singular: str = ""
    short_names: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    custom: bool = False
    verbs: tuple[str, ...] = ALL_VERBS

    @property
    def api_version(self) -> str:
        """`v1`, `apps/v1`: the `apiVersion` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_resource(self) -> str:
        """`pods`, `deployments.apps`: the name of its storage, and how messages call it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def storage(self) -> str:
        """The storage that all versions (and, for events, both groups) of the resource share."""
        return "events" if self.plural == "events" and not self.custom else self.group_resource

    @property
    def list_kind(self) -> str:
        """The `kind` of a list of its objects."""
        return f"{self.kind}List"


def _builtin(
    api_version: str,
    plural: str,
    kind: str,
    short: str = "",
    sub: str = "",
    *,
    namespaced: bool = True,
    categories: tuple[str, ...] = (),
    verbs: tuple[str, ...] = ALL_VERBS,
) -> Resource:
    group, _, version = api_version.rpartition("/")
    return Resource(
        group,
        version,
        plural,
        kind,
        namespaced,
        kind.lower(),
        tuple(short.split()),
        tuple(sub.split()),
        categories,
        verbs=verbs,
    )


_ALL = ("all",)

PODS = _builtin("v1", "pods", "Pod", "po", "status binding eviction log", categories=_ALL)
NODES = _builtin("v1", "nodes", "Node", "no", "status", namespaced=False)
NAMESPACES = _builtin("v1", "namespaces", "Namespace", "ns", "status", namespaced=False)
CONFIG_MAPS = _builtin("v1", "configmaps", "ConfigMap", "cm")
SECRETS = _builtin("v1", "secrets", "Secret")
SERVICES = _builtin("v1", "services", "Service", "svc", "status", categories=_ALL)
SERVICE_ACCOUNTS = _builtin("v1", "serviceaccounts", "ServiceAccount", "sa")
PERSISTENT_VOLUME_CLAIMS = _builtin("v1", "persistentvolumeclaims", "PersistentVolumeClaim", "pvc", "status")
EVENTS = _builtin("v1", "events", "Event", "ev")
RESOURCE_QUOTAS = _builtin("v1", "resourcequotas", "ResourceQuota", "quota", "status")
DEPLOYMENTS = _builtin("apps/v1", "deployments", "Deployment", "deploy", "status scale", categories=_ALL)
REPLICA_SETS = _builtin("apps/v1", "replicasets", "ReplicaSet", "rs", "status scale", categories=_ALL)
STATEFUL_SETS = _builtin("apps/v1", "statefulsets", "StatefulSet", "sts", "status scale", categories=_ALL)
DAEMON_SETS = _builtin("apps/v1", "daemonsets", "DaemonSet", "ds", "status", categories=_ALL)
JOBS = _builtin("batch/v1", "jobs", "Job", "", "status", categories=_ALL)
CRON_JOBS = _builtin("batch/v1", "cronjobs", "CronJob", "cj", "status", categories=_ALL)
PRIORITY_CLASSES = _builtin("scheduling.k8s.io/v1", "priorityclasses", "PriorityClass", "pc", namespaced=False)
LEASES = _builtin("coordination.k8s.io/v1", "leases", "Lease")
EVENTS_V1 = _builtin("events.k8s.io/v1", "events", "Event", "ev")
POD_DISRUPTION_BUDGETS = _builtin("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", "pdb", "status")
CUSTOM_RESOURCE_DEFINITIONS = _builtin(
    "apiextensions.k8s.io/v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    "crd crds",
    "status",
    namespaced=False,
    categories=("api-extensions",),
)
SELF_SUBJECT_ACCESS_REVIEWS = _builtin(
    "authorization.k8s.io/v1",
    "selfsubjectaccessreviews",
    "SelfSubjectAccessReview",
    namespaced=False,
    verbs=("create",),
)

BUILTIN: tuple[Resource, ...] = (
    PODS,
    NODES,
    NAMESPACES,
    CONFIG_MAPS,
    SECRETS,
    SERVICES,
    SERVICE_ACCOUNTS,
    PERSISTENT_VOLUME_CLAIMS,
    EVENTS,
    RESOURCE_QUOTAS,
    DEPLOYMENTS,
    REPLICA_SETS,
    STATEFUL_SETS,
    DAEMON_SETS,
    JOBS,
    CRON_JOBS,
    PRIORITY_CLASSES,
    LEASES,
    EVENTS_V1,
    POD_DISRUPTION_BUDGETS,
    CUSTOM_RESOURCE_DEFINITIONS,
    SELF_SUBJECT_ACCESS_REVIEWS,
)


class Registry:
    """The resources that one cluster serves now."""

    def __init__(self, builtin: Iterable[Resource] = BUILTIN) -> None:
        self._by_path: dict[tuple[str, str, str], Resource] = {}
        self._by_kind: dict[tuple[str, str, str], Resource] = {}
        self._crd_versions: dict[tuple[str, str, str], Json] = {}
        self.revision = 0
        """Counts changes, so that discovery documents can be cached."""
        for resource in builtin:
            self._add(resource)

    def _add(self, resource: Resource) -> None:
        self._by_path[resource.group, resource.version, resource.plural] = resource
        self._by_kind[resource.group, resource.version, resource.kind] = resource
        self.revision += 1

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._by_path.values())

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """The resource at a path, or None."""
        return self._by_path.get((group, version, plural))

    def by_kind(self, api_version: str, kind: str) -> Resource | None:
        """The resource of an object's `apiVersion` and `kind`, or None if it is not served."""
        group, _, version = api_version.rpartition("/")
        return self._by_kind.get((group, version, kind))

    def crd_version(self, resource: Resource) -> Json | None:
        """The entry of `spec.versions` in the CustomResourceDefinition of `resource`; None for builtin kinds."""
        return self._crd_versions.get((resource.group, resource.version, resource.plural))

    def group_versions(self) -> dict[str, list[str]]:
        """Group to served versions, most preferred first; the core group is the empty string."""
        versions: dict[str, list[str]] = {}
        for group, version, _ in self._by_path:
            listed = versions.setdefault(group, [])
            if version not in listed:
                listed.append(version)
        return {group: sorted(listed, key=version_priority) for group, listed in versions.items()}

    def add_crd(self, crd: Json) -> None:
        """Serve what a CustomResourceDefinition describes, in place of an earlier form of it."""
        self.remove_crd(crd)
        spec = crd["spec"]
        names = spec["names"]
        for version in spec["versions"]:
            if not version.get("served"):
                continue
            resource = Resource(
                spec["group"],
                version["name"],
                names["plural"],
                names["kind"],
                spec.get("scope") == "Namespaced",
                names.get("singular") or names["kind"].lower(),
                tuple(names.get("shortNames") or ()),
                tuple(sorted(version.get("subresources") or ())),
                tuple(names.get("categories") or ()),
                custom=True,
            )
            self._crd_versions[resource.group, resource.version, resource.plural] = version
            self._add(resource)

    def remove_crd(self, crd: Json) -> list[Resource]:
        """Serve it no more; answers the resources that went."""
        group, plural = crd["spec"]["group"], crd["spec"]["names"]["plural"]
        gone = [r for r in self._by_path.values() if r.custom and (r.group, r.plural) == (group, plural)]
        for resource in gone:
            del self._by_path[group, resource.version, plural]
            self._by_kind.pop((group, resource.version, resource.kind), None)
            self._crd_versions.pop((group, resource.version, plural), None)
            self.revision += 1
        return gone


def version_priority(version: str) -> tuple[int, int, int, str]:
    """Sort key after upstream's version priority: v2 before v1, stable before beta before alpha."""
    stage_rank = {"": 0, "beta": 1, "alpha": 2}
    for stage in ("alpha", "beta", ""):
        head, found, tail = version[1:].partition(stage) if stage else (version[1:], "", "")
        if stage and not found:
            continue
        if version.startswith("v") and head.isdigit() and (not tail or tail.isdigit()):
            return (stage_rank[stage], -int(head), -int(tail or 0), "")
    return (3, 0, 0, version)
