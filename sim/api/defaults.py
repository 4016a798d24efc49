"""What the API server fills in: defaults of fields, the initial status, and the admission of pods.

The dicts handed in are the request's own copies and are completed in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from sim.api import errors
from sim.api.quantity import canonical
from sim.api.resources import PODS, PRIORITY_CLASSES, Resource

if TYPE_CHECKING:
    from sim.api.store import Store

Json = dict[str, Any]

CRD_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"

_TOLERATED = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def for_create(resource: Resource, obj: Json) -> None:
    """Complete a new object: what counts as the client's own wish."""
    if "status" in resource.subresources and resource.storage not in _KEEPS_STATUS:
        obj.pop("status", None)
    _fill(resource, obj)


def admit(resource: Resource, obj: Json, store: Store) -> None:
    """Complete a new object by admission, and give it its first status; nobody owns these fields.

    ApiError 403 where admission refuses it.
    """
    if resource.storage == PODS.storage:
        _admit_pod(obj, store)
    elif resource.storage == "jobs.batch":
        _generate_selector(obj)
    elif resource.storage == "namespaces":
        _set(_section(obj, "spec"), finalizers=["kubernetes"])
    elif resource.storage == "customresourcedefinitions.apiextensions.k8s.io":
        finalizers = obj["metadata"].get("finalizers") or []
        obj["metadata"]["finalizers"] = [*finalizers, CRD_FINALIZER]
    initial = _INITIAL_STATUS.get(resource.storage)
    if initial is not None:
        status = obj.get("status")
        obj["status"] = initial(obj, status if isinstance(status, dict) else {})


def for_status(resource: Resource, obj: Json) -> None:
    """Complete a status that is written."""
    if resource.storage == "nodes" and isinstance(obj.get("status"), dict):
        quantities(_section(obj, "status"), ("capacity", "allocatable"))


def for_update(resource: Resource, obj: Json, old: Json) -> None:
    """Complete the wanted state of an updated object."""
    _fill(resource, obj)
    if resource.storage == PODS.storage:
        for key in ("priority", "priorityClassName", "preemptionPolicy", "serviceAccountName"):
            if key not in obj["spec"] and key in old["spec"]:
                obj["spec"][key] = old["spec"][key]


def _fill(resource: Resource, obj: Json) -> None:
    fill = _FILLERS.get(resource.storage)
    if fill is not None:
        # The validation that follows reports fields of the wrong type.
        fill(obj)


def _section(obj: Json, key: str) -> Json:
    """The object at `key`, a copy that belongs to `obj`; other types are left to validation."""
    value = obj.get(key)
    section: Json = dict(value) if isinstance(value, dict) else {}
    if value is None or isinstance(value, dict):
        obj[key] = section
    return section


def _set(section: Json, **values: Any) -> None:
    for key, value in values.items():
        if section.get(key) is None:
            section[key] = value


def _objects(section: Json, key: str) -> list[Json]:
    """The objects of the list at `key`, as copies that belong to `section`."""
    items = section.get(key)
    if not isinstance(items, list):
        return []
    section[key] = [dict(item) if isinstance(item, dict) else item for item in items]
    return [item for item in section[key] if isinstance(item, dict)]


def quantities(section: Json, keys: Iterable[str]) -> None:
    """Bring the maps of quantities at `keys` to canonical form; what cannot be read is left to validation."""
    for key in keys:
        amounts = section.get(key)
        if isinstance(amounts, dict):
            section[key] = {name: _canonical_or_same(value) for name, value in amounts.items()}


def _canonical_or_same(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return value
    try:
        return canonical(str(value))
    except ValueError:
        return value


# Pods


def _pod_spec(spec: Json) -> None:
    _set(
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
        for container in _objects(spec, key):
            _container(container)
    for volume in _objects(spec, "volumes"):
        _volume(volume)


def _container(container: Json) -> None:
    image = container.get("image")
    tagged = isinstance(image, str) and ("@" in image or ":" in image.rpartition("/")[2])
    latest = not tagged or str(image).endswith(":latest")
    _set(
        container,
        imagePullPolicy="Always" if latest else "IfNotPresent",
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
    )
    resources = _section(container, "resources")
    quantities(resources, ("limits", "requests"))
    for port in _objects(container, "ports"):
        _set(port, protocol="TCP")
    for variable in _objects(container, "env"):
        source = variable.get("valueFrom")
        if isinstance(source, dict) and isinstance(source.get("fieldRef"), dict):
            field_ref = {"apiVersion": "v1", **source["fieldRef"]}
            variable["valueFrom"] = {**source, "fieldRef": field_ref}
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if isinstance(container.get(name), dict):
            probe = _section(container, name)
            _set(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
            if isinstance(probe.get("httpGet"), dict):
                _set(_section(probe, "httpGet"), path="/", scheme="HTTP")


def _volume(volume: Json) -> None:
    for source in ("configMap", "secret", "downwardAPI", "projected"):
        if isinstance(volume.get(source), dict):
            _set(_section(volume, source), defaultMode=420)
    if isinstance(volume.get("hostPath"), dict):
        _set(_section(volume, "hostPath"), type="")
    if isinstance(volume.get("emptyDir"), dict):
        size = volume["emptyDir"].get("sizeLimit")
        if size is not None:
            volume["emptyDir"] = {**volume["emptyDir"], "sizeLimit": _canonical_or_same(size)}


def _template(spec: Json) -> None:
    template = _section(spec, "template")
    metadata = _section(template, "metadata")
    metadata.pop("creationTimestamp", None)
    if not metadata:
        del template["metadata"]
    _pod_spec(_section(template, "spec"))


def _pod(obj: Json) -> None:
    spec = _section(obj, "spec")
    _pod_spec(spec)
    _set(spec, enableServiceLinks=True)
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


def _admit_pod(obj: Json, store: Store) -> None:
    """The admission plugins ServiceAccount, Priority and DefaultTolerationSeconds."""
    spec = obj["spec"]
    if not isinstance(spec, dict):
        return
    _set(spec, serviceAccountName="default")
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


# Workloads


def _deployment(obj: Json) -> None:
    spec = _section(obj, "spec")
    _set(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    _template(spec)
    strategy = _section(spec, "strategy")
    _set(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _set(_section(strategy, "rollingUpdate"), maxUnavailable="25%", maxSurge="25%")


def _replica_set(obj: Json) -> None:
    spec = _section(obj, "spec")
    _set(spec, replicas=1)
    _template(spec)


def _stateful_set(obj: Json) -> None:
    spec = _section(obj, "spec")
    _set(
        spec,
        replicas=1,
        revisionHistoryLimit=10,
        podManagementPolicy="OrderedReady",
        persistentVolumeClaimRetentionPolicy={"whenDeleted": "Retain", "whenScaled": "Retain"},
    )
    _template(spec)
    strategy = _section(spec, "updateStrategy")
    _set(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _set(_section(strategy, "rollingUpdate"), partition=0)


def _daemon_set(obj: Json) -> None:
    spec = _section(obj, "spec")
    _set(spec, revisionHistoryLimit=10)
    _template(spec)
    strategy = _section(spec, "updateStrategy")
    _set(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _set(_section(strategy, "rollingUpdate"), maxUnavailable=1, maxSurge=0)


def _job_spec(spec: Json) -> None:
    _set(spec, backoffLimit=6, suspend=False, completionMode="NonIndexed", podReplacementPolicy="")
    _set(spec, manualSelector=False)
    if not spec["podReplacementPolicy"]:
        spec["podReplacementPolicy"] = "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed"
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    _set(spec, parallelism=1)
    _template(spec)


def _job(obj: Json) -> None:
    spec = _section(obj, "spec")
    _job_spec(spec)
    template = spec["template"].get("metadata")
    _set(obj["metadata"], labels=dict((template or {}).get("labels") or {}) or None)
    if not obj["metadata"]["labels"]:
        del obj["metadata"]["labels"]


def _generate_selector(obj: Json) -> None:
    """A selector by the job's uid, and the labels that it selects."""
    spec, metadata = obj["spec"], obj["metadata"]
    uid, name = metadata["uid"], metadata["name"]
    if isinstance(spec, dict) and spec.get("selector") is None and not spec.get("manualSelector"):
        generated = {
            "batch.kubernetes.io/controller-uid": uid,
            "batch.kubernetes.io/job-name": name,
            "controller-uid": uid,
            "job-name": name,
        }
        template = _section(spec["template"], "metadata")
        template["labels"] = {**(template.get("labels") or {}), **generated}
        metadata["labels"] = {**(metadata.get("labels") or {}), **generated}
        spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}


def _cron_job(obj: Json) -> None:
    spec = _section(obj, "spec")
    _set(
        spec,
        concurrencyPolicy="Allow",
        suspend=False,
        successfulJobsHistoryLimit=3,
        failedJobsHistoryLimit=1,
    )
    # The job's own defaults come when a job is made of it.
    _template(_section(_section(spec, "jobTemplate"), "spec"))


# Other kinds


def _service(obj: Json) -> None:
    spec = _section(obj, "spec")
    _set(spec, type="ClusterIP", sessionAffinity="None", internalTrafficPolicy="Cluster")
    for port in _objects(spec, "ports"):
        _set(port, protocol="TCP")
        _set(port, targetPort=port.get("port"))


def _node(obj: Json) -> None:
    _section(obj, "spec")
    if isinstance(obj.get("status"), dict):
        quantities(_section(obj, "status"), ("capacity", "allocatable"))


def _namespace(obj: Json) -> None:
    labels = dict(obj["metadata"].get("labels") or {})
    labels["kubernetes.io/metadata.name"] = obj["metadata"].get("name", "")
    obj["metadata"]["labels"] = labels


def _claim(obj: Json) -> None:
    spec = _section(obj, "spec")
    _set(spec, volumeMode="Filesystem")
    quantities(_section(spec, "resources"), ("requests", "limits"))


def _quota(obj: Json) -> None:
    quantities(_section(obj, "spec"), ("hard",))


def _secret(obj: Json) -> None:
    import base64

    _set(obj, type="Opaque")
    plain = obj.pop("stringData", None)
    if isinstance(plain, dict):
        encoded = {k: base64.b64encode(str(v).encode()).decode() for k, v in plain.items()}
        obj["data"] = {**(obj.get("data") or {}), **encoded}


def _priority_class(obj: Json) -> None:
    _set(obj, preemptionPolicy="PreemptLowerPriority", value=0)


def _crd(obj: Json) -> None:
    spec = _section(obj, "spec")
    names = _section(spec, "names")
    if isinstance(names.get("kind"), str):
        _set(names, singular=names["kind"].lower(), listKind=names["kind"] + "List")
    _set(spec, conversion={"strategy": "None"})


_FILLERS: dict[str, Callable[[Json], None]] = {
    "pods": _pod,
    "nodes": _node,
    "namespaces": _namespace,
    "services": _service,
    "secrets": _secret,
    "persistentvolumeclaims": _claim,
    "resourcequotas": _quota,
    "deployments.apps": _deployment,
    "replicasets.apps": _replica_set,
    "statefulsets.apps": _stateful_set,
    "daemonsets.apps": _daemon_set,
    "jobs.batch": _job,
    "cronjobs.batch": _cron_job,
    "priorityclasses.scheduling.k8s.io": _priority_class,
    "customresourcedefinitions.apiextensions.k8s.io": _crd,
}

# Kinds that may be created with a status.
_KEEPS_STATUS = frozenset({"nodes"})


_ACCEPTED = "the initial names have been accepted"


def _crd_status(obj: Json, _given: Json) -> Json:
    spec = obj["spec"]
    since = obj["metadata"]["creationTimestamp"]
    conditions = [
        {"type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "message": "no conflicts found"},
        {"type": "Established", "status": "True", "reason": "InitialNamesAccepted", "message": _ACCEPTED},
    ]
    versions = [v for v in spec.get("versions") or () if isinstance(v, dict)]
    return {
        "conditions": [{**c, "lastTransitionTime": since} for c in conditions],
        "acceptedNames": spec.get("names"),
        "storedVersions": [v.get("name") for v in versions if v.get("storage")],
    }


_INITIAL_STATUS: dict[str, Callable[[Json, Json], Json]] = {
    "pods": lambda obj, _: {"phase": "Pending", "qosClass": qos_class(obj["spec"])},
    "namespaces": lambda _obj, _given: {"phase": "Active"},
    "persistentvolumeclaims": lambda _obj, _given: {"phase": "Pending"},
    "services": lambda _obj, _given: {"loadBalancer": {}},
    "nodes": lambda _obj, given: given,
    "deployments.apps": lambda _obj, _given: {},
    "replicasets.apps": lambda _obj, _given: {"replicas": 0},
    "statefulsets.apps": lambda _obj, _given: {"availableReplicas": 0, "replicas": 0},
    "daemonsets.apps": lambda _obj, _given: {
        "currentNumberScheduled": 0,
        "numberMisscheduled": 0,
        "desiredNumberScheduled": 0,
        "numberReady": 0,
    },
    "jobs.batch": lambda _obj, _given: {},
    "cronjobs.batch": lambda _obj, _given: {},
    "resourcequotas": lambda _obj, _given: {},
    "poddisruptionbudgets.policy": lambda _obj, _given: {
        "disruptionsAllowed": 0,
        "currentHealthy": 0,
        "desiredHealthy": 0,
        "expectedPods": 0,
    },
    "customresourcedefinitions.apiextensions.k8s.io": _crd_status,
}
