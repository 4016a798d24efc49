"""What the API server fills in: defaults of fields, the initial status, and the admission of pods.

The dicts handed in are the request's own copies and are completed in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.api.editing import fill, objects, quantities, section
from sim.api.poddefaults import admit_pod, default_pod, default_template, qos_class
from sim.api.resources import PODS, Resource

if TYPE_CHECKING:
    from sim.api.store import Store

Json = dict[str, Any]

CRD_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


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
        admit_pod(obj, store)
    elif resource.storage == "jobs.batch":
        _generate_selector(obj)
    elif resource.storage == "namespaces":
        fill(section(obj, "spec"), finalizers=["kubernetes"])
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
        quantities(section(obj, "status"), ("capacity", "allocatable"))


def for_update(resource: Resource, obj: Json, old: Json) -> None:
    """Complete the wanted state of an updated object."""
    _fill(resource, obj)
    if resource.storage == PODS.storage:
        for key in ("priority", "priorityClassName", "preemptionPolicy", "serviceAccountName"):
            if key not in obj["spec"] and key in old["spec"]:
                obj["spec"][key] = old["spec"][key]


def _fill(resource: Resource, obj: Json) -> None:
    complete = _FILLERS.get(resource.storage)
    if complete is not None:
        # The validation that follows reports fields of the wrong type.
        complete(obj)


# Workloads


def _deployment(obj: Json) -> None:
    spec = section(obj, "spec")
    fill(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    default_template(spec)
    strategy = section(spec, "strategy")
    fill(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        fill(section(strategy, "rollingUpdate"), maxUnavailable="25%", maxSurge="25%")


def _replica_set(obj: Json) -> None:
    spec = section(obj, "spec")
    fill(spec, replicas=1)
    default_template(spec)


def _stateful_set(obj: Json) -> None:
    spec = section(obj, "spec")
    fill(
        spec,
        replicas=1,
        revisionHistoryLimit=10,
        podManagementPolicy="OrderedReady",
        persistentVolumeClaimRetentionPolicy={"whenDeleted": "Retain", "whenScaled": "Retain"},
    )
    default_template(spec)
    strategy = section(spec, "updateStrategy")
    fill(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        fill(section(strategy, "rollingUpdate"), partition=0)


def _daemon_set(obj: Json) -> None:
    spec = section(obj, "spec")
    fill(spec, revisionHistoryLimit=10)
    default_template(spec)
    strategy = section(spec, "updateStrategy")
    fill(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        fill(section(strategy, "rollingUpdate"), maxUnavailable=1, maxSurge=0)


def _job_spec(spec: Json) -> None:
    fill(spec, backoffLimit=6, suspend=False, completionMode="NonIndexed", podReplacementPolicy="")
    fill(spec, manualSelector=False)
    if not spec["podReplacementPolicy"]:
        spec["podReplacementPolicy"] = "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed"
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    fill(spec, parallelism=1)
    default_template(spec)


def _job(obj: Json) -> None:
    spec = section(obj, "spec")
    _job_spec(spec)
    template = spec["template"].get("metadata")
    fill(obj["metadata"], labels=dict((template or {}).get("labels") or {}) or None)
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
        template = section(spec["template"], "metadata")
        template["labels"] = {**(template.get("labels") or {}), **generated}
        metadata["labels"] = {**(metadata.get("labels") or {}), **generated}
        spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}


def _cron_job(obj: Json) -> None:
    spec = section(obj, "spec")
    fill(
        spec,
        concurrencyPolicy="Allow",
        suspend=False,
        successfulJobsHistoryLimit=3,
        failedJobsHistoryLimit=1,
    )
    # The job's own defaults come when a job is made of it.
    default_template(section(section(spec, "jobTemplate"), "spec"))


# Other kinds


def _service(obj: Json) -> None:
    spec = section(obj, "spec")
    fill(spec, type="ClusterIP", sessionAffinity="None", internalTrafficPolicy="Cluster")
    for port in objects(spec, "ports"):
        fill(port, protocol="TCP")
        fill(port, targetPort=port.get("port"))


def _node(obj: Json) -> None:
    section(obj, "spec")
    if isinstance(obj.get("status"), dict):
        quantities(section(obj, "status"), ("capacity", "allocatable"))


def _namespace(obj: Json) -> None:
    labels = dict(obj["metadata"].get("labels") or {})
    labels["kubernetes.io/metadata.name"] = obj["metadata"].get("name", "")
    obj["metadata"]["labels"] = labels


def _claim(obj: Json) -> None:
    spec = section(obj, "spec")
    fill(spec, volumeMode="Filesystem")
    quantities(section(spec, "resources"), ("requests", "limits"))


def _quota(obj: Json) -> None:
    quantities(section(obj, "spec"), ("hard",))


def _secret(obj: Json) -> None:
    import base64

    fill(obj, type="Opaque")
    plain = obj.pop("stringData", None)
    if isinstance(plain, dict):
        encoded = {k: base64.b64encode(str(v).encode()).decode() for k, v in plain.items()}
        obj["data"] = {**(obj.get("data") or {}), **encoded}


def _priority_class(obj: Json) -> None:
    fill(obj, preemptionPolicy="PreemptLowerPriority", value=0)


def _crd(obj: Json) -> None:
    spec = section(obj, "spec")
    names = section(spec, "names")
    if isinstance(names.get("kind"), str):
        fill(names, singular=names["kind"].lower(), listKind=names["kind"] + "List")
    fill(spec, conversion={"strategy": "None"})


_FILLERS: dict[str, Callable[[Json], None]] = {
    "pods": default_pod,
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
