"""Counts, priorities and gangs of every workload kind, and changing their replicas."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gpufleet.model import kinds
from gpufleet.model.kinds import KindError
from gpufleet.model.workload import Division
from tests.support import manifests


def components(manifest: dict[str, Any]) -> dict[str, int]:
    return {c.name: c.replicas for c in kinds.interpret(manifest).components}


def test_every_kind_has_a_sample() -> None:
    assert set(manifests.every_kind()) == {spec.kind for spec in kinds.known()}


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (manifests.deployment(3), {"main": 3}),
        (manifests.deployment(None), {"main": 1}),
        (manifests.deployment(0), {"main": 0}),
        (manifests.deployment(2, "StatefulSet"), {"main": 2}),
        (manifests.pod(), {"main": 1}),
        (manifests.job(3), {"main": 3}),
        (manifests.job(None), {"main": 1}),
        (manifests.job(5, 2), {"main": 2}),
        (manifests.cron_job(), {"main": 2}),
        (manifests.pytorch(2), {"Master": 1, "Worker": 2}),
        (manifests.tensorflow(), {"PS": 1, "Worker": 2}),
        (manifests.mpi(), {"Launcher": 1, "Worker": 4}),
        (manifests.spark(), {"driver": 1, "executor": 5}),
        (manifests.workflow(), {"main": 1}),
        (manifests.ray_job(), {"head": 1, "small": 2, "large": 4}),
        (manifests.ray_cluster(), {"head": 1, "small": 2, "large": 4}),
    ],
    ids=lambda value: value.get("kind", ""),
)
def test_components(manifest: dict[str, Any], expected: dict[str, int]) -> None:
    assert components(manifest) == expected


@pytest.mark.parametrize("kind", sorted(manifests.every_kind()))
def test_only_services_are_divided_and_never_fenced(kind: str) -> None:
    workload = kinds.interpret(manifests.every_kind()[kind])
    services = ("Deployment", "StatefulSet", "CloneSet")
    assert (workload.division is Division.REPLICAS) == (kind in services)
    beside = ("ConfigMap", "Secret", "PersistentVolumeClaim", "ServiceAccount")
    assert workload.job == (kind not in (*services, *beside, "RayCluster"))
    assert workload.key == f"test/{kind}/x"


def with_spec(manifest: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**manifest, "spec": {**manifest["spec"], **fields}}


@pytest.mark.parametrize(
    ("dynamic", "instances", "expected"),
    [
        ({"enabled": True, "initialExecutors": 7, "minExecutors": 2}, 3, 7),
        ({"enabled": True, "minExecutors": 2}, None, 2),
        ({"enabled": True}, 3, 3),
        ({"enabled": False, "initialExecutors": 7}, None, 1),
    ],
)
def test_executors_with_dynamic_allocation(dynamic: dict[str, Any], instances: int | None, expected: int) -> None:
    executor = {} if instances is None else {"instances": instances}
    manifest = with_spec(manifests.spark(), executor=executor, dynamicAllocation=dynamic)
    assert components(manifest)["executor"] == expected


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ({"replicas": 3}, 3),
        ({"replicas": 1, "minReplicas": 2}, 2),
        ({"replicas": 9, "maxReplicas": 4}, 4),
        ({"replicas": 9, "maxReplicas": 2**31 - 1}, 9),
        ({"minReplicas": 2, "maxReplicas": 4}, 2),
        ({"replicas": 2, "numOfHosts": 4, "maxReplicas": 4}, 8),
        ({"replicas": 2, "suspend": True}, 0),
    ],
)
def test_workers_of_ray_are_within_their_bounds(group: dict[str, Any], expected: int) -> None:
    workers = [{"groupName": "w", "template": manifests.template(), **group}]
    cluster = with_spec(manifests.ray_cluster(), enableInTreeAutoscaling=True, workerGroupSpecs=workers)
    assert components(cluster) == {"head": 1, "w": expected}


def test_a_driver_in_client_mode_is_not_counted() -> None:
    assert components(with_spec(manifests.spark(), mode="client")) == {"executor": 5}


# --- Priority (specification 14) ----------------------------------------------------------------------------------


def pytorch_with(**classes: dict[str, Any]) -> dict[str, Any]:
    roles = {role: {"template": manifests.template(**spec)} for role, spec in classes.items()}
    return manifests.manifest("kubeflow.org/v1", "PyTorchJob", {"pytorchReplicaSpecs": roles})


def workflow_with(entry: dict[str, Any], **spec: Any) -> dict[str, Any]:
    templates = [{"name": "b", "priorityClassName": "wrong"}, {"name": "a", **entry}]
    return manifests.manifest("argoproj.io/v1alpha1", "Workflow", {"entrypoint": "a", "templates": templates, **spec})


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        pytest.param(
            pytorch_with(Master={"priorityClassName": "low"}, Worker={"priorityClassName": "high"}),
            ("high", None),
            id="the first role that is not Master (T26)",
        ),
        pytest.param(
            pytorch_with(Master={"priority": 1}, Worker={"priorityClassName": "high", "priority": 5}),
            ("high", 5),
            id="with its literal priority",
        ),
        pytest.param(pytorch_with(Master={"priorityClassName": "low"}), ("", None), id="a Master alone has none"),
        pytest.param(
            with_spec(manifests.spark(), batchSchedulerOptions={"priorityClassName": "batch"}),
            ("batch", None),
            id="spark",
        ),
        pytest.param(workflow_with({"priorityClassName": "flow"}), ("flow", None), id="the entrypoint's class"),
        pytest.param(workflow_with({"priorityClassName": "flow"}, priority=3), ("", 3), id="spec.priority goes first"),
    ],
)
def test_what_ranks_a_job(manifest: dict[str, Any], expected: tuple[str, int | None]) -> None:
    workload = kinds.interpret(manifest)
    assert (workload.priority_class, workload.priority) == expected


# --- Gang (specification 12.2) ------------------------------------------------------------------------------------


def test_a_gang_names_its_least_members() -> None:
    manifest = with_spec(manifests.pytorch(), runPolicy={"schedulingPolicy": {"minAvailable": 2}})
    assert kinds.interpret(manifest).min_member == 2
    labelled = copy.deepcopy(manifests.job())
    labelled["spec"]["template"]["metadata"]["labels"]["pod-group.scheduling.sigs.k8s.io/min-available"] = "3"
    assert kinds.interpret(labelled).min_member == 3
    annotated = copy.deepcopy(manifests.job())
    annotated["spec"]["template"]["metadata"]["annotations"] = {"gang.scheduling.koordinator.sh/min-available": "2"}
    assert kinds.interpret(annotated).min_member == 2
    assert kinds.interpret(manifests.pytorch()).min_member is None


# --- Changing a manifest ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(manifests.every_kind()))
def test_replicas_that_are_the_same_change_nothing_that_counts(kind: str) -> None:
    manifest = manifests.every_kind()[kind]
    before = copy.deepcopy(manifest)
    written = kinds.with_replicas(manifest, components(manifest))
    assert manifest == before
    assert components(written) == components(manifest)


@pytest.mark.parametrize(
    ("manifest", "wanted", "path", "value"),
    [
        (manifests.deployment(3), {"main": 5}, ("spec", "replicas"), 5),
        (manifests.deployment(None), {"main": 1}, ("spec", "replicas"), 1),
        (manifests.deployment(3), {"main": 0}, ("spec", "replicas"), 0),
        (manifests.job(3), {"main": 5}, ("spec", "parallelism"), 5),
        (manifests.cron_job(), {"main": 5}, ("spec", "jobTemplate", "spec", "parallelism"), 5),
        (manifests.pytorch(2), {"Worker": 5}, ("spec", "pytorchReplicaSpecs", "Worker", "replicas"), 5),
        (manifests.mpi(), {"Worker": 5}, ("spec", "mpiReplicaSpecs", "Worker", "replicas"), 5),
        (manifests.spark(), {"executor": 2, "driver": 1}, ("spec", "executor", "instances"), 2),
        (manifests.ray_cluster(), {"small": 5}, ("spec", "workerGroupSpecs", 0, "replicas"), 5),
        (manifests.ray_cluster(), {"large": 8}, ("spec", "workerGroupSpecs", 1, "replicas"), 2),
        (manifests.ray_job(), {"small": 0}, ("spec", "rayClusterSpec", "workerGroupSpecs", 0, "minReplicas"), 0),
    ],
)
def test_replicas_are_set(
    manifest: dict[str, Any], wanted: dict[str, int], path: tuple[str | int, ...], value: int
) -> None:
    before = copy.deepcopy(manifest)
    written: Any = kinds.with_replicas(manifest, wanted.items())
    after = components(written)
    assert manifest == before, "the given manifest is not changed"
    assert {name: after[name] for name in wanted} == wanted
    for part in path:
        written = written[part]
    assert written == value


@pytest.mark.parametrize("kind", sorted(manifests.every_kind()))
def test_every_component_has_a_template(kind: str) -> None:
    manifest = manifests.every_kind()[kind]
    assert {t.component for t in kinds.pod_templates(manifest)} == set(components(manifest))


def test_where_templates_are() -> None:
    worker = kinds.pod_templates(manifests.pytorch())[1]
    assert kinds.pointer(worker.labels) == "/spec/pytorchReplicaSpecs/Worker/template/metadata/labels"
    assert kinds.pointer(worker.node_selector) == "/spec/pytorchReplicaSpecs/Worker/template/spec/nodeSelector"
    assert kinds.pointer(kinds.pod_templates(manifests.pod())[0].annotations) == "/metadata/annotations"
    executor = kinds.pod_templates(manifests.spark())[1]
    assert (kinds.pointer(executor.labels), kinds.pointer(executor.tolerations)) == (
        "/spec/executor/labels",
        "/spec/executor/tolerations",
    )
    group = kinds.pod_templates(manifests.ray_job())[2]
    assert (group.component, kinds.pointer(group.path)) == ("large", "/spec/rayClusterSpec/workerGroupSpecs/1/template")
    assert kinds.pointer(("a/b", "c~d", 0)) == "/a~1b/c~0d/0"


def test_a_workflow_step_with_its_own_nodes_is_a_template_too() -> None:
    own = workflow_with({"nodeSelector": {"gpu": "a10"}})
    assert [kinds.pointer(t.node_selector) for t in kinds.pod_templates(own)] == [
        "/spec/nodeSelector",
        "/spec/templates/1/nodeSelector",
    ]
    assert kinds.pointer(kinds.pod_templates(own)[0].labels) == "/spec/podMetadata/labels"


def test_kinds_that_can_start_suspended() -> None:
    paths = {spec.kind: spec.suspend_path for spec in kinds.known() if spec.suspend_path}
    assert paths == {
        "Job": ("spec", "suspend"),
        "CronJob": ("spec", "suspend"),
        "PyTorchJob": ("spec", "runPolicy", "suspend"),
        "TFJob": ("spec", "runPolicy", "suspend"),
        "MPIJob": ("spec", "runPolicy", "suspend"),
        "Workflow": ("spec", "suspend"),
        "RayJob": ("spec", "suspend"),
        "RayCluster": ("spec", "suspend"),
    }


# --- Digest -------------------------------------------------------------------------------------------------------


def test_what_a_server_sets_does_not_change_the_digest() -> None:
    manifest = manifests.deployment()
    read_back = copy.deepcopy(manifest)
    read_back["status"] = {"replicas": 3}
    read_back["metadata"].update(
        uid="u",
        resourceVersion="7",
        generation=2,
        creationTimestamp="2026-01-01T00:00:00Z",
        managedFields=[{}],
        annotations={"kubectl.kubernetes.io/last-applied-configuration": "{}"},
    )
    assert kinds.digest(read_back) == kinds.digest(manifest)
    assert kinds.interpret(manifest).digest == kinds.digest(manifest)


def test_a_change_or_a_new_uid_changes_the_digest() -> None:
    one = kinds.digest(manifests.deployment(3))
    assert len({one, kinds.digest(manifests.deployment(4)), kinds.digest(manifests.deployment(3), "u")}) == 3
    assert kinds.interpret(manifests.deployment(3), uid="u").digest == kinds.digest(manifests.deployment(3), "u")


def test_the_uid_is_the_producers() -> None:
    manifest = manifests.deployment()
    manifest["metadata"]["uid"] = "from-manifest"
    assert kinds.interpret(manifest).uid == "from-manifest"
    assert kinds.interpret(manifest, uid="from-envelope").uid == "from-envelope"
    assert kinds.interpret(manifests.deployment()).uid == ""


# --- Wrong manifests ----------------------------------------------------------------------------------------------


def changed(manifest: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    manifest = copy.deepcopy(manifest)
    here: Any = manifest
    *way, last = path.split(".")
    for part in way:
        here = here[int(part) if part.isdigit() else part]
    if value is None:
        here.pop(last)
    else:
        here[last] = value
    return manifest


GANG = "gang.scheduling.koordinator.sh/min-available"
CPU = "spec.template.spec.containers[0].resources.requests"


@pytest.mark.parametrize(
    ("manifest", "path", "message"),
    [
        (changed(manifests.deployment(), "spec.replicas", -1), "spec.replicas", "is -1, but must be 0 or more"),
        (changed(manifests.deployment(), "spec.replicas", 10**9), "spec.replicas", "more than the limit of 100000"),
        (changed(manifests.deployment(), "spec.replicas", "3"), "spec.replicas", "must be a whole number, not '3'"),
        (changed(manifests.deployment(), "spec.replicas", True), "spec.replicas", "must be a whole number"),
        (changed(manifests.deployment(), "spec.template", None), "spec.template", "is missing"),
        (changed(manifests.deployment(), "spec.template.spec", None), "spec.template.spec", "is missing"),
        (
            changed(manifests.deployment(), "spec.template.spec.containers", []),
            "spec.template.spec.containers",
            "empty",
        ),
        (changed(manifests.deployment(), "spec", [1]), "spec", "must be a map, not a list"),
        (changed(manifests.deployment(), "metadata.name", None), "metadata.name", "is missing"),
        (changed(manifests.deployment(), "metadata.name", "A b"), "metadata.name", "is not a valid name"),
        (changed(manifests.deployment(), "metadata.namespace", "${NS}"), "metadata.namespace", "is not a valid name"),
        (
            changed(manifests.deployment(), "spec.template.spec.containers.0.resources.requests.memory", "8Gx"),
            f"{CPU}.memory",
            "'8Gx' is not a quantity",
        ),
        (
            changed(manifests.deployment(), "spec.template.spec.containers.0.resources.requests.cpu", [1]),
            f"{CPU}.cpu",
            "must be a quantity, not a list",
        ),
        (
            changed(manifests.deployment(), "spec.template.spec.containers.0.resources.limits", {"cpu": "500m"}),
            f"{CPU}.cpu",
            "is more than the limit",
        ),
        (
            changed(
                manifests.deployment(), "spec.template.spec.containers.0.resources", {"limits": {"nvidia.com/gpu": 0.5}}
            ),
            "spec.template.spec.containers[0].resources.limits[nvidia.com/gpu]",
            "only whole units",
        ),
        (
            changed(manifests.deployment(), "spec.template.metadata.labels", {"app": "y"}),
            "spec.selector.matchLabels",
            "asks for app=x, which the pods do not have",
        ),
        (
            changed(manifests.deployment(), "spec.template.spec.nodeSelector", {"a": True}),
            "spec.template.spec.nodeSelector.a",
            "must be a text, not true or false",
        ),
        (
            changed(manifests.deployment(), "spec.template.spec.tolerations", [{"operator": "Equals"}]),
            "spec.template.spec.tolerations[0].operator",
            "is 'Equals'",
        ),
        (changed(manifests.pytorch(), "spec.pytorchReplicaSpecs", {}), "spec.pytorchReplicaSpecs", "missing or empty"),
        (
            changed(manifests.pytorch(), "spec.pytorchReplicaSpecs.Workers", {}),
            "spec.pytorchReplicaSpecs.Workers",
            "is not a role of this kind",
        ),
        (
            changed(manifests.pytorch(), "spec.pytorchReplicaSpecs.Worker.template", None),
            "spec.pytorchReplicaSpecs.Worker.template",
            "is missing",
        ),
        (changed(manifests.spark(), "spec.type", "Rust"), "spec.type", "is 'Rust'"),
        (changed(manifests.spark(), "spec.executor.memory", "1gg"), "spec.executor.memory", "not an amount of memory"),
        (changed(manifests.spark(), "spec.memoryOverheadFactor", "x"), "spec.memoryOverheadFactor", "is 'x'"),
        (changed(manifests.workflow(), "spec.entrypoint", "b"), "spec.entrypoint", "which is no template"),
        (
            with_spec(
                manifests.ray_cluster(),
                workerGroupSpecs=[
                    {"groupName": "w", "template": manifests.template(), "minReplicas": 4, "maxReplicas": 3}
                ],
            ),
            "spec.workerGroupSpecs[0].minReplicas",
            "is 4, more than maxReplicas 3",
        ),
        (
            changed(manifests.workflow(), "metadata.annotations", {"kube-queue/min-resources": "lots"}),
            "metadata.annotations.kube-queue/min-resources",
            "is not a map of resources",
        ),
        (changed(manifests.ray_cluster(), "spec.headGroupSpec", None), "spec.headGroupSpec", "has no template"),
        (
            changed(manifests.ray_cluster(), "spec.workerGroupSpecs.1.groupName", "small"),
            "spec.workerGroupSpecs[1].groupName",
            "is 'small'",
        ),
        (changed(manifests.ray_job(), "spec.rayClusterSpec", None), "spec.rayClusterSpec", "is missing"),
        (changed(manifests.cron_job(), "spec.schedule", None), "spec.schedule", "is missing"),
        (
            changed(manifests.pytorch(), "spec.runPolicy", {"schedulingPolicy": {"minAvailable": 2**31}}),
            "spec.runPolicy.schedulingPolicy.minAvailable",
            "more than the limit of 100000",
        ),
        (
            changed(manifests.deployment(), "spec.template.metadata.annotations", {GANG: "9" * 5000}),
            f"spec.template.metadata.annotations[{GANG}]",
            "must be a whole number from 1 to 100000",
        ),
        (
            changed(manifests.deployment(), "spec.template.spec.priority", 2**31),
            "spec.template.spec.priority",
            "is 2147483648, but a priority has 32 bits",
        ),
        (changed(manifests.deployment(), "kind", "Deploy"), "kind", "not a known kind of workload"),
        (changed(manifests.deployment(), "apiVersion", "apps/v2"), "apiVersion", "apps/v2 has no Deployment"),
        (changed(manifests.deployment(), "apiVersion", None), "apiVersion", "is missing"),
        (changed(manifests.deployment(), "spec.extra", float("nan")), "", "cannot be written as JSON"),
    ],
)
def test_a_wrong_manifest_names_field_and_remedy(manifest: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(KindError) as caught:
        kinds.interpret(manifest)
    assert caught.value.path == path
    assert message in caught.value.message


def test_all_problems_are_reported_together() -> None:
    manifest = changed(manifests.deployment(-1), "spec.template.spec.containers.0.resources.requests.memory", "8Gx")
    with pytest.raises(KindError) as caught:
        kinds.interpret(changed(manifest, "metadata.name", "A"))
    assert [problem.path for problem in caught.value.problems] == ["metadata.name", "spec.replicas", f"{CPU}.memory"]
    assert "write a number such as" in str(caught.value)


def test_too_many_pods_over_all_roles() -> None:
    manifest = changed(manifests.pytorch(100_000), "spec.pytorchReplicaSpecs.Master.replicas", 1)
    with pytest.raises(KindError, match="asks for 100001 pods"):
        kinds.interpret(manifest)
