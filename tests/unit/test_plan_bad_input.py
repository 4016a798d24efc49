"""What is wrong, absurd or missing in the documents of a plan: named with its field, and nothing else stops."""

from __future__ import annotations

from typing import Any

import pytest

from gpufleet.wire.documents import DocumentErrors, lint_policies, parse_text
from gpufleet.wire.yaml import dump
from tests.support.plans import GPU, LLM, Json, cluster, codes, deployment, job, planned, policy, shares

TRAIN = "test/PyTorchJob/train"


def errors(*documents: Json) -> list[tuple[str, str]]:
    with pytest.raises(DocumentErrors) as caught:
        parse_text(dump(documents))
    return [(error.path, error.message) for error in caught.value.errors]


def warnings(*documents: Json, classes: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    parsed = parse_text(dump(documents))
    found = [*parsed.warnings, *lint_policies(parsed, lambda _: (None, ()), classes)]
    return [(warning.path, warning.message) for warning in found]


# -- priority ------------------------------------------------------------------------------------------------------


def priority_class(name: str, value: int, **fields: Any) -> Json:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
    } | (fields)


def ranked(document: Any, rank: str, *way: str) -> Json:
    """The document with a priorityClassName in the pod template below ``way``."""
    template = document["spec"]
    for part in way:
        template = template[part]
    spec = {**template["template"]["spec"], "priorityClassName": rank}
    template["template"] = {**template["template"], "spec": spec}
    return document  # type: ignore[no-any-return]


def pytorch(master: str, worker: str) -> Json:
    found: Any = job(1, gpu=1)
    roles = found["spec"]["pytorchReplicaSpecs"]
    roles["Master"] = {"template": roles["Worker"]["template"]}
    ranked(found, worker, "pytorchReplicaSpecs", "Worker")
    return ranked(found, master, "pytorchReplicaSpecs", "Master")


USUAL = priority_class("usual", 50, globalDefault=True)
CLASSES = (priority_class("high", 100), priority_class("mid", 10), priority_class("low", -10))


@pytest.mark.parametrize(
    ("master", "worker", "first"),
    [("high", "low", LLM), ("low", "high", TRAIN)],
    ids=["T26 Worker decides", "T26 reversed"],
)
def test_the_worker_ranks_a_job(master: str, worker: str, first: str) -> None:
    found = planned(cluster("c1", 2), policy(), *CLASSES, pytorch(master, worker), ranked(deployment(2), "mid"))
    assert {key for key, placement in found.items() if placement.placed} == {first}


@pytest.mark.parametrize(
    ("default", "first"),
    [
        pytest.param((), "test/Deployment/plain", id="no default: 0, like the other, which came first"),
        pytest.param(
            (priority_class("usual", 50, globalDefault=True),), "test/Deployment/plain", id="the default for both"
        ),
    ],
)
def test_a_priority_class_that_is_missing_counts_as_none(default: tuple[Json, ...], first: str) -> None:
    documents = (cluster("c1", 2), policy(), *default, deployment(2, "plain"), ranked(deployment(2), "nope"))
    found = planned(*documents)
    assert {key for key, placement in found.items() if placement.placed} == {first}
    assert warnings(*documents) == [
        ("spec.template.spec.priorityClassName", "there is no PriorityClass 'nope', so it says nothing")
    ]
    assert warnings(*documents, classes=("nope",)) == []
    assert warnings(*documents, priority_class("nope", 1)) == []


def test_where_a_missing_priority_class_is_named() -> None:
    assert [path for path, _ in warnings(pytorch("one", "two"))] == [
        "spec.pytorchReplicaSpecs.Worker.template.spec.priorityClassName",
        "spec.pytorchReplicaSpecs.Master.template.spec.priorityClassName",
    ]
    assert warnings(ranked(deployment(1), "system-cluster-critical")) == []


def test_classes_that_every_cluster_has_rank_without_being_told() -> None:
    critical = ranked(deployment(2), "system-cluster-critical")
    found = planned(cluster("c1", 2), policy(), deployment(2, "plain"), critical)
    assert {key for key, placement in found.items() if placement.placed} == {LLM}


def test_a_gang_that_never_starts_is_told() -> None:
    found: Any = job(2)
    name = "pod-group.scheduling.sigs.k8s.io"
    labels = {f"{name}/name": "g", f"{name}/min-available": "5"}
    found["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["metadata"]["labels"] |= labels
    assert warnings(found) == [("", "the gang starts with 5 pods, but there are only 2 of them")]


def test_a_quota_tree_that_promises_more_than_there_is() -> None:
    root = {"name": "root", "min": {GPU: 20, "cpu": 10}, "max": {GPU: 20, "cpu": 10}}
    tree: Json = {
        "apiVersion": "scheduling.sigs.k8s.io/v1beta1",
        "kind": "ElasticQuotaTree",
        "metadata": {"name": "eq", "namespace": "kube-system"},
        "spec": {"root": root},
    }
    told = (f"spec.root.max[{GPU}]", "is 20, but the nodes of all clusters, those in stock too, have 16")
    assert warnings(cluster("c1", 8, full=1), tree) == [told]
    assert warnings(cluster("c1", 8, elastic=1), tree) == [told]
    assert warnings(cluster("c1", 8, elastic=2), tree) == []
    assert warnings(tree) == []


# -- quantities ----------------------------------------------------------------------------------------------------

WRONG = [
    ("-1", "negative"),
    (-1, "negative"),
    ("1e30", "is too large"),
    ("9" * 70, "is not a quantity"),
    (2**61, "is too large"),
    ("lots", "is not a quantity"),
    ([], "must be a quantity, not a list"),
    ("", "is not a quantity"),
]


def asking(name: str, amount: Any) -> Json:
    found: Any = deployment(1)
    container = found["spec"]["template"]["spec"]["containers"][0]
    return {
        **found,
        "spec": {
            **found["spec"],
            "template": {
                **found["spec"]["template"],
                "spec": {"containers": [{**container, "resources": {"limits": {name: amount}}}]},
            },
        },
    }


@pytest.mark.parametrize(("amount", "message"), WRONG)
@pytest.mark.parametrize("name", ["cpu", "memory", GPU])
def test_what_pods_ask_for(name: str, amount: Any, message: str) -> None:
    place = f"[{name}]" if "." in name else f".{name}"
    ((path, said),) = errors(asking(name, amount))
    assert path == f"spec.template.spec.containers[0].resources.limits{place}"
    assert message in said


@pytest.mark.parametrize(("amount", "message"), WRONG)
def test_what_nodes_have(amount: Any, message: str) -> None:
    found: Any = cluster("c1", 8)
    found["status"]["nodeClasses"][0]["allocatable"] = {"cpu": amount, GPU: "8"}
    ((path, said),) = errors(found)
    assert path == "status.nodeClasses[0].allocatable.cpu"
    assert message.replace("must be a quantity, not a list", "a") in said


@pytest.mark.parametrize(
    ("changes", "path", "message"),
    [
        ({"nodes": -1}, "nodes", "is -1, but must be 0 or more"),
        ({"nodes": 10**12}, "nodes", "must be"),
        ({"nodes": 1.5}, "nodes", "must be a whole number"),
        ({"free": [{"nodes": 5}]}, "free", "5"),
        ({"free": [{"nodes": 1, GPU: "9"}]}, f"free[0][{GPU}]", "9"),
        ({"elastic": {"maxNodes": -1}}, "elastic.maxNodes", "is -1, but must be 0 or more"),
    ],
)
def test_what_a_class_of_nodes_cannot_be(changes: dict[str, Any], path: str, message: str) -> None:
    found: Any = cluster("c1", 8)
    found["status"]["nodeClasses"][0].update(changes)
    ((where, said),) = errors(found)
    assert where == f"status.nodeClasses[0].{path}"
    assert message in said


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("max", -1, "spec.units[0].max"),
        ("max", 2**40, "spec.units[0].max"),
        ("maxResources", {"cpu": "-1"}, "spec.units[0].maxResources.cpu"),
        ("maxResources", {"memory": "1e40"}, "spec.units[0].maxResources.memory"),
        ("maxResources", {GPU: []}, f"spec.units[0].maxResources[{GPU}]"),
    ],
)
def test_bounds_of_units(field: str, value: Any, path: str) -> None:
    units = {
        "apiVersion": "scheduling.alibabacloud.com/v1alpha1",
        "kind": "ResourcePolicy",
        "metadata": {"name": "r", "namespace": "test"},
        "spec": {"units": [{"resource": "ecs", field: value}]},
    }
    ((found, _),) = errors(units)
    assert found == path


# -- serverless pods (specification 15.1) --------------------------------------------------------------------------


def serverless(limits: Json, requests: Json | None = None, /, **labels: str) -> Json:
    found: Any = deployment(1)
    resources = {"limits": limits} | ({"requests": requests} if requests is not None else {})
    marks = {"app": "llm"} | {f"alibabacloud.com/{name.replace('_', '-')}": value for name, value in labels.items()}
    template = {
        "metadata": {"labels": marks},
        "spec": {"containers": [{"name": "main", "image": "x", "resources": resources}]},
    }
    return {**found, "spec": {**found["spec"], "template": template}}


LABELS = "spec.template.metadata.labels"
LIMITS = {"cpu": "4", "memory": "16Gi", GPU: "1"}
ACS_GPU = {"acs": "true", "compute_class": "gpu", "gpu_model_series": "T4"}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (serverless(LIMITS, **ACS_GPU), []),
        (serverless(LIMITS, {"cpu": "4000m", "memory": "16Gi"}, **ACS_GPU), []),
        (
            serverless(LIMITS, {"cpu": "2", "memory": "16Gi"}, **ACS_GPU),
            ["spec.template.spec.containers[0].resources.requests.cpu"],
        ),
        (
            serverless({GPU: "1"}, {"cpu": "2"}, **ACS_GPU),
            ["spec.template.spec.containers[0].resources.requests.cpu"],
        ),
        (serverless(LIMITS, acs="true", compute_class="gpu"), [f"{LABELS}[alibabacloud.com/compute-class]"]),
        (serverless(LIMITS, acs="true", compute_class="huge"), [f"{LABELS}[alibabacloud.com/compute-class]"]),
        (serverless(LIMITS, acs="true", compute_qos="spot"), [f"{LABELS}[alibabacloud.com/compute-qos]"]),
        (
            serverless(LIMITS, **{**ACS_GPU, "compute_class": "gpu-hpn"}, compute_qos="best-effort"),
            [f"{LABELS}[alibabacloud.com/compute-qos]"],
        ),
        # Whoever does not ask for a serverless GPU may ask for less than the limit.
        (serverless(LIMITS, {"cpu": "2"}, acs="true", compute_class="performance"), []),
        (serverless(LIMITS, {"cpu": "2"}), []),
    ],
)
def test_what_a_serverless_region_does_not_give(document: Json, expected: list[str]) -> None:
    assert [path for path, _ in warnings(document)] == expected


def test_what_units_write_to_pods() -> None:
    unit = {"resource": "acs", "podLabels": {"alibabacloud.com/compute-class": "tpu"}}
    document = {
        "apiVersion": "scheduling.alibabacloud.com/v1alpha1",
        "kind": "ResourcePolicy",
        "metadata": {"name": "r", "namespace": "test"},
        "spec": {"units": [unit], "whenTryNextUnits": {"policy": "TimeoutOrExceedMax", "timeout": "1m"}},
    }
    assert warnings(document) == [
        ("spec.units[0].podLabels[alibabacloud.com/compute-class]", "is 'tpu'"),
        ("spec.whenTryNextUnits.timeout", "does nothing, because every unit is acs"),
    ]


# -- sizes ---------------------------------------------------------------------------------------------------------


def huge(name: str, nodes: int) -> Json:
    found: Any = cluster(name)
    found["status"]["nodeClasses"][0].update({"nodes": nodes, "free": [{"nodes": nodes}]})
    return found  # type: ignore[no-any-return]


def test_ten_thousand_replicas() -> None:
    fleet = (huge("a", 250), huge("b", 500), huge("c", 750))  # 2,000, 4,000 and 6,000 GPUs
    found = planned(*fleet, policy(), deployment(10_000))[LLM]
    assert (found.verdict.value, shares(found)) == ("Scheduled", {"a": 1667, "b": 3333, "c": 5000})
    found = planned(*fleet, policy(["a"], ["b"], ["c"]), deployment(10_000))[LLM]
    assert shares(found) == {"a": 2000, "b": 4000, "c": 4000}
    found = planned(*fleet, policy(), deployment(13_000))[LLM]
    assert (found.verdict.value, found.placed, found.unplaced) == ("PartiallyScheduled", 12_000, 1_000)


def test_ten_thousand_workers_in_one_cluster() -> None:
    fleet = (huge("a", 500), huge("b", 1250), huge("c", 1500))
    found = planned(*fleet, policy(), job(10_000, gpu=1))[TRAIN]
    assert (found.verdict.value, shares(found)) == ("Scheduled", {"b": 10_000})
    found = planned(*fleet, policy(), job(12_001, gpu=1))[TRAIN]
    assert (found.placed, codes(found) & {"NeverFits"}) == (0, {"NeverFits"})


@pytest.mark.parametrize(("replicas", "message"), [(100_001, "more than the limit of 100000"), (2**70, "more than")])
def test_more_pods_than_anybody_has(replicas: int, message: str) -> None:
    ((path, said),) = errors(deployment(replicas))
    assert path == "spec.replicas"
    assert message in said


# -- nothing there -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rest", [(), (policy(["c1"]),), (policy(division={}),), (policy(autoScaling={"ecsProvision": True}),)]
)
def test_a_fleet_with_no_clusters(rest: tuple[Json, ...]) -> None:
    found = planned(*rest, deployment(3), deployment(0, "none"), job(2))
    assert all(not placement.shares for placement in found.values())
    expected = {"NoClusters"} if rest else {"NoMatchingPolicy"}
    if rest == (policy(["c1"]),):
        expected = {"ClusterUnknown"}
    assert codes(found[LLM]) | codes(found[TRAIN]) == expected
    assert {found[LLM].verdict.value, found[TRAIN].verdict.value} == {"Unschedulable"}


def test_clusters_without_nodes() -> None:
    found = planned(cluster("c1"), cluster("c2", 0, full=3), policy(), deployment(3), job(2))
    assert {placement.verdict.value for placement in found.values()} == {"Unschedulable"}


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_json_does_not_have_are_named_with_their_field(number: float) -> None:
    tree = {
        "apiVersion": "scheduling.sigs.k8s.io/v1beta1",
        "kind": "ElasticQuotaTree",
        "metadata": {"name": "tree", "namespace": "kube-system"},
        "spec": {"root": {"children": [{"name": "a", "min": {"cpu": number}}]}},
    }
    rule: Any = policy()
    rule["spec"]["priority"] = number
    web: Any = deployment(2)
    web["spec"]["replicas"] = number
    message = f"is {number}, which JSON does not have"
    paths = ["spec.root.children[0].min.cpu", "spec.priority", "spec.replicas"]
    assert errors(tree, rule, web) == [(path, message) for path in paths]


def test_a_toleration_lasts_no_longer_than_a_time_can_be_counted() -> None:
    def tolerating(seconds: int) -> Json:
        rule: Any = policy()
        rule["spec"]["placement"]["clusterTolerations"] = [{"operator": "Exists", "tolerationSeconds": seconds}]
        return rule  # type: ignore[no-any-return]

    driven: Any = cluster("c1", 8)
    driven["spec"] = {**driven.get("spec", {}), "taints": [{"key": "gone", "effect": "NoExecute"}]}
    ((path, message),) = errors(driven, tolerating(10**400), deployment(1))
    assert path == "spec.placement.clusterTolerations[0].tolerationSeconds"
    assert len(message) < 200
    assert planned(driven, tolerating(2**63 - 1), deployment(1))[LLM].placed == 1
