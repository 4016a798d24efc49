"""What pods refer to and need beside them: ConfigMap, Secret, PersistentVolumeClaim, ServiceAccount.

They have no pods of their own. With `propagateDeps` they travel to the clusters of the workloads that name them; a
policy that selects them itself puts one into every cluster that it means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gpufleet.model.kinds import conditions
from gpufleet.model.kinds.base import KindSpec, Manifest, ObjectStatus, Pods, PodTemplate
from gpufleet.model.kinds.reading import View
from gpufleet.model.placement import WorkloadHealth
from gpufleet.model.workload import Division, workload_key

CONFIG_MAP, SECRET, CLAIM, ACCOUNT = "ConfigMap", "Secret", "PersistentVolumeClaim", "ServiceAccount"
_MAPS = {CONFIG_MAP: ("data", "binaryData"), SECRET: ("data", "stringData")}
# Volumes that name a Secret, and where they do; the name is a text, or the `name` in a map.
_SECRET_VOLUMES = (
    ("azureFile", "secretName"),
    ("cephfs", "secretRef"),
    ("cinder", "secretRef"),
    ("csi", "nodePublishSecretRef"),
    ("flexVolume", "secretRef"),
    ("iscsi", "secretRef"),
    ("rbd", "secretRef"),
    ("scaleIO", "secretRef"),
    ("secret", "secretName"),
    ("storageos", "secretRef"),
)
_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")


def references(namespace: str, pod_specs: Iterable[Mapping[str, Any]], made: Iterable[str] = ()) -> frozenset[str]:
    """Returns the keys of what pods refer to; ``made`` names claims that a controller makes for its pods by itself."""
    own = frozenset(made)
    return frozenset(
        workload_key(namespace, kind, name)
        for spec in pod_specs
        for kind, name in _of_pod(spec)
        if name and not (kind == CLAIM and name in own) and not (kind == ACCOUNT and name == "default")
    )


def _of_pod(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield ACCOUNT, _text(spec, "serviceAccountName") or _text(spec, "serviceAccount")
    for secret in _items(spec, "imagePullSecrets"):
        yield SECRET, _text(secret, "name")
    for volume in _items(spec, "volumes"):
        yield from _of_volume(volume)
    for place in _CONTAINERS:
        for container in _items(spec, place):
            for source in _items(container, "envFrom"):
                yield CONFIG_MAP, _text(_map(source, "configMapRef"), "name")
                yield SECRET, _text(_map(source, "secretRef"), "name")
            for variable in _items(container, "env"):
                value = _map(variable, "valueFrom")
                yield CONFIG_MAP, _text(_map(value, "configMapKeyRef"), "name")
                yield SECRET, _text(_map(value, "secretKeyRef"), "name")


def _of_volume(volume: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield CONFIG_MAP, _text(_map(volume, "configMap"), "name")
    yield CLAIM, _text(_map(volume, "persistentVolumeClaim"), "claimName")
    for source in _items(_map(volume, "projected"), "sources"):
        yield CONFIG_MAP, _text(_map(source, "configMap"), "name")
        yield SECRET, _text(_map(source, "secret"), "name")
    for kind, field in _SECRET_VOLUMES:
        inner = _map(volume, kind)
        yield SECRET, _text(inner, field) or _text(_map(inner, field), "name")


def _map(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, Mapping) else {}


def _items(value: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    found = value.get(key)
    return (item for item in (found if isinstance(found, list | tuple) else ()) if isinstance(item, Mapping))


def _text(value: Mapping[str, Any], key: str) -> str:
    found = value.get(key)
    return found if isinstance(found, str) else ""


def _read(manifest: View) -> Pods:
    for key in _MAPS.get(str(manifest.value.get("kind")), ()):
        manifest.strings(key)
    return Pods(())


def _pod_templates(_: Manifest) -> tuple[PodTemplate, ...]:
    return ()


def _write_replicas(_: dict[str, Any], __: Mapping[str, int]) -> None:
    """There is nothing to count."""


def _read_status(manifest: Manifest) -> ObjectStatus:
    _, status = conditions.parts(manifest)
    phase = conditions.text(status, "phase")
    if phase == "Lost":
        return ObjectStatus(WorkloadHealth.UNHEALTHY, message="the claim has lost its volume")
    return ObjectStatus(WorkloadHealth.HEALTHY if phase in ("", "Bound") else WorkloadHealth.PROGRESSING)


KINDS = tuple(
    KindSpec(
        group="",
        versions=("v1",),
        kind=kind,
        division=Division.WHOLE,
        job=False,
        components=(),
        read=_read,
        pod_templates=_pod_templates,
        write_replicas=_write_replicas,
        read_status=_read_status,
    )
    for kind in (CONFIG_MAP, SECRET, CLAIM, ACCOUNT)
)
