"""Validation of the builtin kinds, as far as clients of a scheduler can run into it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sim.api.problems import DNS_LABEL, DNS_SUBDOMAIN, Problems
from sim.api.quantity import amount
from sim.api.resources import Resource
from sim.api.selectors import LabelSelector

Json = dict[str, Any]

_RESTART = ("Always", "OnFailure", "Never")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
_TEMPLATE_ALWAYS = ("Always",)
_TEMPLATE_JOB = ("OnFailure", "Never")
_IMMUTABLE = "field is immutable"


def check_kind(resource: Resource, obj: Json, problems: Problems) -> None:
    """The rules of the object's kind."""
    check = _CHECKS.get(resource.storage)
    if check is not None:
        check(obj, problems)


def check_kind_update(resource: Resource, new: Json, old: Json, problems: Problems) -> None:
    """What an update of the kind must leave alone."""
    check = _UPDATE_CHECKS.get(resource.storage)
    if check is not None:
        check(new, old, problems)


# Pods


def _check_pod_spec(spec: Json, path: str, problems: Problems, restart: tuple[str, ...] = _RESTART) -> None:
    problems.one_of(spec, "restartPolicy", path, restart)
    problems.whole_number(spec, "terminationGracePeriodSeconds", path)
    problems.whole_number(spec, "activeDeadlineSeconds", path, least=1)
    containers = problems.objects(spec, "containers", path)
    if not containers:
        problems.required(f"{path}containers")
    names: set[str] = set()
    for at, container in [*problems.objects(spec, "initContainers", path), *containers]:
        _check_container(container, at + ".", names, problems)
    for key, value in problems.section(spec, "nodeSelector", path).items():
        if not isinstance(value, str):
            problems.wrong_type(f"{path}nodeSelector.{key}", value, "string")
    for at, toleration in problems.objects(spec, "tolerations", path):
        problems.one_of(toleration, "operator", at + ".", ("Equal", "Exists"))
        problems.one_of(toleration, "effect", at + ".", ("", *_EFFECTS))
        if toleration.get("operator") == "Exists" and toleration.get("value"):
            problems.invalid(f"{at}.operator", toleration["value"], "value must be empty when `operator` is 'Exists'")
    volumes: set[str] = set()
    for at, volume in problems.objects(spec, "volumes", path):
        _check_listed_name(volume, at, volumes, problems)


def _check_listed_name(item: Json, at: str, taken: set[str], problems: Problems) -> None:
    name = item.get("name")
    if not name:
        problems.required(f"{at}.name")
    elif not isinstance(name, str):
        problems.wrong_type(f"{at}.name", name, "string")
    elif not DNS_LABEL.match(name) or len(name) > 63:
        text = (
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start "
            "and end with an alphanumeric character"
        )
        problems.invalid(f"{at}.name", name, text)
    elif name in taken:
        problems.duplicate(f"{at}.name", name)
    else:
        taken.add(name)


def _check_container(container: Json, path: str, names: set[str], problems: Problems) -> None:
    _check_listed_name(container, path[:-1], names, problems)
    if not container.get("image"):
        problems.required(f"{path}image")
    problems.one_of(container, "imagePullPolicy", path, ("Always", "IfNotPresent", "Never"))
    for at, port in problems.objects(container, "ports", path):
        number = port.get("containerPort")
        if isinstance(number, int) and not 0 < number < 65536:
            problems.invalid(f"{at}.containerPort", number, "must be between 1 and 65535, inclusive")
        elif not isinstance(number, int):
            problems.wrong_type(f"{at}.containerPort", number, "int32")
    for at, variable in problems.objects(container, "env", path):
        if not variable.get("name"):
            problems.required(f"{at}.name")
        if not isinstance(variable.get("value", ""), str):
            problems.wrong_type(f"{at}.value", variable["value"], "string")
    _check_resources(problems.section(container, "resources", path), path + "resources.", problems)


def _check_resources(resources: Json, path: str, problems: Problems) -> None:
    limits = problems.quantities(resources, "limits", path)
    requests = problems.quantities(resources, "requests", path)
    for name, wanted in requests.items():
        extended = "/" in name and not name.startswith("hugepages-")
        if extended and name not in limits:
            problems.required(f"{path}limits", "Limit must be set for non overcommitable resources")
        elif name in limits and amount(wanted) > amount(limits[name]):
            text = f"must be less than or equal to {name} limit of {limits[name]}"
            problems.invalid(f"{path}requests", wanted, text)
        elif extended and amount(wanted) != amount(limits[name]):
            problems.invalid(f"{path}requests", wanted, f"must be equal to {name} limit of {limits[name]}")
    for name, limit in limits.items():
        if "/" in name and amount(limit).denominator != 1:
            problems.invalid(f"{path}limits[{name}]", limit, "must be an integer")


def _check_pod(obj: Json, problems: Problems) -> None:
    _check_pod_spec(problems.section(obj, "spec", ""), "spec.", problems)


def _check_pod_update(new: Json, old: Json, problems: Problems) -> None:
    def fixed(obj: Json) -> Json:
        spec = dict(obj.get("spec") or {})
        for free in ("activeDeadlineSeconds", "tolerations", "schedulingGates", "terminationGracePeriodSeconds"):
            spec.pop(free, None)
        if obj.get("spec", {}).get("schedulingGates"):
            spec.pop("nodeSelector", None)
            spec.pop("affinity", None)
        for key in ("containers", "initContainers"):
            spec[key] = [{**c, "image": ""} for c in spec.get(key) or ()]
        return spec

    gated = {"spec": {**new["spec"], "schedulingGates": old["spec"].get("schedulingGates")}}
    if fixed(gated) != fixed(old):
        problems.forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
            "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
            "previously negative)",
        )


# Workloads


def _check_template(spec: Json, problems: Problems, restart: tuple[str, ...], *, selected: bool) -> None:
    template = problems.section(spec, "template", "spec.")
    path = "spec.template."
    metadata = problems.section(template, "metadata", path)
    labels = problems.section(metadata, "labels", path + "metadata.")
    _check_pod_spec(problems.section(template, "spec", path), path + "spec.", problems, restart)
    if not selected:
        return
    selector = problems.section(spec, "selector", "spec.")
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        problems.required("spec.selector")
        selector = {"matchLabels": {"": ""}}
    for at, term in problems.objects(selector, "matchExpressions", "spec.selector."):
        if term.get("operator") not in _OPERATORS or not term.get("key"):
            problems.invalid(f"{at}.operator", term.get("operator"), "not a valid selector operator")
            return
    if not LabelSelector.from_document(selector).matches(labels):
        message = "`selector` does not match template `labels`"
        problems.invalid("spec.template.metadata.labels", labels, message)


def _check_deployment(obj: Json, problems: Problems) -> None:
    spec = problems.section(obj, "spec", "")
    for key in ("replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"):
        problems.whole_number(spec, key, "spec.")
    strategy = problems.section(spec, "strategy", "spec.")
    problems.one_of(strategy, "type", "spec.strategy.", ("Recreate", "RollingUpdate"))
    if strategy.get("type") == "Recreate" and strategy.get("rollingUpdate"):
        problems.forbidden("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
    _check_template(spec, problems, _TEMPLATE_ALWAYS, selected=True)


def _check_replica_set(obj: Json, problems: Problems) -> None:
    spec = problems.section(obj, "spec", "")
    problems.whole_number(spec, "replicas", "spec.")
    problems.whole_number(spec, "minReadySeconds", "spec.")
    _check_template(spec, problems, _TEMPLATE_ALWAYS, selected=True)


def _check_job_spec(spec: Json, problems: Problems) -> None:
    for key in ("parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"):
        problems.whole_number(spec, key, "spec.")
    problems.one_of(spec, "completionMode", "spec.", ("NonIndexed", "Indexed"))


def _check_job(obj: Json, problems: Problems) -> None:
    spec = problems.section(obj, "spec", "")
    _check_job_spec(spec, problems)
    _check_template(spec, problems, _TEMPLATE_JOB, selected="selector" in spec)


def _check_cron_job(obj: Json, problems: Problems) -> None:
    spec = problems.section(obj, "spec", "")
    if not spec.get("schedule"):
        problems.required("spec.schedule")
    template = problems.section(spec, "jobTemplate", "spec.")
    job = problems.section(template, "spec", "spec.jobTemplate.")
    _check_job_spec(job, problems)
    _check_template(job, problems, _TEMPLATE_JOB, selected=False)


def _immutable(*fields: str) -> Callable[[Json, Json, Problems], None]:
    def check(new: Json, old: Json, problems: Problems) -> None:
        for field in fields:
            have, wanted = (obj.get("spec", {}).get(field) for obj in (old, new))
            if have != wanted:
                problems.invalid(f"spec.{field}", wanted, _IMMUTABLE)

    return check


_STATEFUL_SET_FREE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)


def _check_stateful_set_update(new: Json, old: Json, problems: Problems) -> None:
    def fixed(obj: Json) -> Json:
        return {key: value for key, value in obj["spec"].items() if key not in _STATEFUL_SET_FREE}

    if fixed(new) != fixed(old):
        listed = ", ".join(f"'{name}'" for name in _STATEFUL_SET_FREE[:-1])
        problems.forbidden(
            "spec", f"updates to statefulset spec for fields other than {listed} and 'minReadySeconds' are forbidden"
        )


def _check_job_update(new: Json, old: Json, problems: Problems) -> None:
    suspended = old["spec"].get("suspend")
    for field in ("completions", "selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex"):
        if new["spec"].get(field) != old["spec"].get(field):
            problems.invalid(f"spec.{field}", new["spec"].get(field), _IMMUTABLE)
    # A suspended job's scheduling directives may change (KEP-2926); its template as a whole may not.
    if new["spec"]["template"] != old["spec"]["template"]:
        free = ("nodeSelector", "affinity", "tolerations", "schedulingGates")

        def fixed(obj: Json) -> Json:
            template = obj["spec"]["template"]
            pod = {k: v for k, v in template.get("spec", {}).items() if k not in free}
            return {"spec": pod}

        if not suspended or fixed(new) != fixed(old):
            problems.invalid("spec.template", {}, _IMMUTABLE)


# Other kinds


def _check_node(obj: Json, problems: Problems) -> None:
    spec = problems.section(obj, "spec", "")
    seen: set[tuple[Any, Any]] = set()
    for at, taint in problems.objects(spec, "taints", "spec."):
        if not taint.get("key"):
            problems.required(f"{at}.key")
        if taint.get("effect") not in _EFFECTS:
            problems.unsupported(f"{at}.effect", taint.get("effect"), _EFFECTS)
        pair = (taint.get("key"), taint.get("effect"))
        if pair in seen:
            problems.duplicate(at, taint)
        seen.add(pair)
    status = problems.section(obj, "status", "")
    problems.quantities(status, "capacity", "status.")
    problems.quantities(status, "allocatable", "status.")


def _check_priority_class(obj: Json, problems: Problems) -> None:
    value, name = obj.get("value"), obj["metadata"].get("name", "")
    if isinstance(value, bool) or not isinstance(value, int):
        problems.wrong_type("value", value, "int32")
    elif value > 1_000_000_000 and not name.startswith("system-"):
        problems.forbidden("value", "maximum allowed value of a user defined priority is 1000000000")
    problems.one_of(obj, "preemptionPolicy", "", ("Never", "PreemptLowerPriority"))


def _check_priority_class_update(new: Json, old: Json, problems: Problems) -> None:
    for field in ("value", "preemptionPolicy"):
        if new.get(field) != old.get(field):
            problems.forbidden(field, "may not be changed in an update.")


def _check_data(obj: Json, problems: Problems) -> None:
    for key, value in problems.section(obj, "data", "").items():
        if not isinstance(value, str):
            problems.wrong_type(f"data.{key}", value, "string")


def _check_event(obj: Json, problems: Problems) -> None:
    involved = problems.section(obj, "involvedObject", "")
    namespace = obj["metadata"].get("namespace")
    if involved.get("namespace") and involved["namespace"] != namespace:
        problems.invalid("involvedObject.namespace", involved["namespace"], "does not match event.namespace")


def _check_quota(obj: Json, problems: Problems) -> None:
    problems.quantities(problems.section(obj, "spec", ""), "hard", "spec.")


def _check_crd(obj: Json, problems: Problems) -> None:
    spec = problems.section(obj, "spec", "")
    names = problems.section(spec, "names", "spec.")
    group, plural = spec.get("group"), names.get("plural")
    if not isinstance(group, str) or not DNS_SUBDOMAIN.match(group):
        problems.required("spec.group")
    for field in ("plural", "kind"):
        if not isinstance(names.get(field), str) or not names[field]:
            problems.required(f"spec.names.{field}")
    protected = isinstance(group, str) and group.endswith((".k8s.io", ".kubernetes.io"))
    annotations = obj["metadata"].get("annotations") or {}
    if protected and "api-approved.kubernetes.io" not in annotations:
        field = "metadata.annotations[api-approved.kubernetes.io]"
        problems.required(field, 'protected groups must have approval annotation "api-approved.kubernetes.io"')
    problems.one_of(spec, "scope", "spec.", ("Cluster", "Namespaced"))
    if "scope" not in spec:
        problems.required("spec.scope")
    if obj["metadata"].get("name") != f"{plural}.{group}":
        problems.invalid("metadata.name", obj["metadata"].get("name"), 'must be spec.names.plural+"."+spec.group')
    versions = problems.objects(spec, "versions", "spec.")
    if sum(bool(version.get("storage")) for _, version in versions) != 1:
        problems.invalid("spec.versions", [], "must have exactly one version marked as storage version")
    for at, version in versions:
        if not version.get("name"):
            problems.required(f"{at}.name")
        if not problems.section(version, "schema", at + ".").get("openAPIV3Schema"):
            problems.required(f"{at}.schema.openAPIV3Schema", "schemas are required")


_CHECKS: dict[str, Callable[[Json, Problems], None]] = {
    "pods": _check_pod,
    "nodes": _check_node,
    "configmaps": _check_data,
    "secrets": _check_data,
    "events": _check_event,
    "resourcequotas": _check_quota,
    "deployments.apps": _check_deployment,
    "replicasets.apps": _check_replica_set,
    "statefulsets.apps": _check_replica_set,
    "daemonsets.apps": _check_replica_set,
    "jobs.batch": _check_job,
    "cronjobs.batch": _check_cron_job,
    "priorityclasses.scheduling.k8s.io": _check_priority_class,
    "customresourcedefinitions.apiextensions.k8s.io": _check_crd,
}

_UPDATE_CHECKS: dict[str, Callable[[Json, Json, Problems], None]] = {
    "pods": _check_pod_update,
    "deployments.apps": _immutable("selector"),
    "replicasets.apps": _immutable("selector"),
    "daemonsets.apps": _immutable("selector"),
    "statefulsets.apps": _check_stateful_set_update,
    "jobs.batch": _check_job_update,
    "priorityclasses.scheduling.k8s.io": _check_priority_class_update,
}
