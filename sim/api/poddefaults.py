"""Defaults and admission of pods, and of the pod templates in other kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.api import errors
from sim.api.editing import canonical_or_same, fill, objects, quantities, section
from sim.api.resources import PODS, PRIORITY_CLASSES

if TYPE_CHECKING:
    from sim.api.store import Store

Json = dict[str, Any]

_TOLERATED = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def _pod_spec(spec: Json) -> None:
    fill(
        spec,
        restartPolicy="Always",
        terminationGracePeriodSeconds=30,
        dnsPolicy="ClusterFirst",
        schedulerName="default-scheduler",
        securityContext={},
    )
    quantities(spec, ("overhead",))
    if "serviceAccountName" in spec:
        spec["serviceAccount"] = spec["serviceAccountName"]
    for key in ("initContainers", "containers"):
        for container in objects(spec, key):
            _container(container)
    for volume in objects(spec, "volumes"):
        _volume(volume)


def _container(container: Json) -> None:
    image = container.get("image")
    tagged = isinstance(image, str) and ("@" in image or ":" in image.rpartition("/")[2])
    latest = not tagged or str(image).endswith(":latest")
    fill(
        container,
        imagePullPolicy="Always" if latest else "IfNotPresent",
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
    )
    resources = section(container, "resources")
    quantities(resources, ("limits", "requests"))
    for port in objects(container, "ports"):
        fill(port, protocol="TCP")
    for variable in objects(container, "env"):
        source = variable.get("valueFrom")
        if isinstance(source, dict) and isinstance(source.get("fieldRef"), dict):
            field_ref = {"apiVersion": "v1", **source["fieldRef"]}
            variable["valueFrom"] = {**source, "fieldRef": field_ref}
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if isinstance(container.get(name), dict):
            probe = section(container, name)
            fill(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
            if isinstance(probe.get("httpGet"), dict):
                fill(section(probe, "httpGet"), path="/", scheme="HTTP")


def _volume(volume: Json) -> None:
    for source in ("configMap", "secret", "downwardAPI", "projected"):
        if isinstance(volume.get(source), dict):
            fill(section(volume, source), defaultMode=420)
    if isinstance(volume.get("hostPath"), dict):
        fill(section(volume, "hostPath"), type="")
    if isinstance(volume.get("emptyDir"), dict):
        size = volume["emptyDir"].get("sizeLimit")
        if size is not None:
            volume["emptyDir"] = {**volume["emptyDir"], "sizeLimit": canonical_or_same(size)}


def default_template(spec: Json) -> None:
    """Complete the pod template of a workload's spec."""
    template = section(spec, "template")
    metadata = section(template, "metadata")
    metadata.pop("creationTimestamp", None)
    if not metadata:
        del template["metadata"]
    _pod_spec(section(template, "spec"))


def default_pod(obj: Json) -> None:
    """Complete a pod."""
    spec = section(obj, "spec")
    _pod_spec(spec)
    fill(spec, enableServiceLinks=True)
    for key in ("initContainers", "containers"):
        for container in spec[key] if isinstance(spec.get(key), list) else ():
            if isinstance(container, dict) and isinstance(container["resources"], dict):
                _default_requests(container["resources"])


def _default_requests(resources: Json) -> None:
    """A pod (not the template of one) requests what it limits and does not request."""
    limits, requests = resources.get("limits"), resources.get("requests")
    if isinstance(limits, dict) and isinstance(requests, (dict, type(None))):
        missing = {name: value for name, value in limits.items() if name not in (requests or {})}
        if missing:
            resources["requests"] = {**(requests or {}), **missing}


def admit_pod(obj: Json, store: Store) -> None:
    """The admission plugins ServiceAccount, Priority and DefaultTolerationSeconds."""
    spec = obj["spec"]
    if not isinstance(spec, dict):
        return
    fill(spec, serviceAccountName="default")
    spec["serviceAccount"] = spec["serviceAccountName"]
    _admit_priority(obj, spec, store)
    tolerations = spec.get("tolerations", [])
    if not isinstance(tolerations, list) or not all(isinstance(t, dict) for t in tolerations):
        return
    have = {t.get("key") for t in tolerations if t.get("effect") in {None, "", "NoExecute"}}
    if None not in have and "" not in have:
        added = [
            {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            for key in _TOLERATED
            if key not in have
        ]
        spec["tolerations"] = [*tolerations, *added]


def _admit_priority(obj: Json, spec: Json, store: Store) -> None:
    name = spec.get("priorityClassName")
    if name:
        found = store.find(PRIORITY_CLASSES, "", str(name))
        if found is None:
            pod = obj["metadata"].get("name", "")
            raise errors.forbidden(PODS, pod, f"no PriorityClass with name {name} was found")
    else:
        fallbacks = [c for c in store.list(PRIORITY_CLASSES) if c.get("globalDefault")]
        found = min(fallbacks, key=lambda c: int(c["value"])) if fallbacks else None
        if found is not None:
            spec["priorityClassName"] = found["metadata"]["name"]
    spec["priority"] = found["value"] if found else 0
    spec["preemptionPolicy"] = (found or {}).get("preemptionPolicy", "PreemptLowerPriority")


def qos_class(spec: Json) -> str:
    """Guaranteed, Burstable or BestEffort, from the requests and limits of cpu and memory."""
    containers = [c for key in ("initContainers", "containers") for c in spec.get(key) or ()]
    guaranteed, best_effort = True, True
    for container in containers:
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        if any(name in part for name in ("cpu", "memory") for part in (limits, requests)):
            best_effort = False
        if any(name not in limits or requests.get(name) != limits[name] for name in ("cpu", "memory")):
            guaranteed = False
    return "BestEffort" if best_effort else "Guaranteed" if guaranteed else "Burstable"
