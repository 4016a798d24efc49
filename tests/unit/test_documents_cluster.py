"""Clusters, placements and scenarios: reading, refusing, and writing what is read back."""

from __future__ import annotations

from typing import Any

import pytest

from gpufleet.model.cluster import (
    ClusterSpec,
    ElasticStock,
    FreeBlock,
    Health,
    Inventory,
    ModelStock,
    NodeClass,
    Scoring,
    VirtualNode,
)
from gpufleet.model.log import ClusterAccess, ClusterRegistration
from gpufleet.model.placement import ClusterShare, Placement, Slot, Source, Version
from gpufleet.model.reasons import Code, Reason, Verdict
from gpufleet.model.selectors import Taint
from gpufleet.wire import documents, yaml
from gpufleet.wire import documents_scenario as scenarios
from gpufleet.wire.documents import DocumentErrors

# As the design shows it.
CLUSTER = """
apiVersion: gpufleet.io/v1alpha1
kind: Cluster
metadata:
  name: c-idc
  labels: {tier: idc}
spec:
  provider: idc
  region: cn-hangzhou
  zones: [cn-hangzhou-a]
  taints: [{key: maintenance, value: "true", effect: NoSchedule}]
  access: {kubeconfig: idc.yaml, context: admin}
  scoringStrategy: {type: MostAllocated, resources: [{name: nvidia.com/gpu, weight: 5}, {name: cpu}]}
status:
  health: Ready
  apis: [apps/v1/Deployment]
  nodeClasses:
  - name: a100
    labels: {gpu: a100}
    taints: []
    allocatable: {cpu: "96", memory: 1Ti, pods: "110", nvidia.com/gpu: "8"}
    nodes: 4
    free:
    - {nodes: 3}
    - {nodes: 1, cpu: "20", nvidia.com/gpu: "2", gpuFree: [1000, 400]}
    elastic: {maxNodes: 10, stock: 5, provisionSeconds: 180}
  virtualNodes:
  - name: vk-zhangjiakou
    labels: {type: virtual-kubelet, topology.kubernetes.io/region: cn-zhangjiakou}
    taints: [{key: virtual-kubelet.io/provider, value: alibabacloud, effect: NoSchedule}]
    stock: [{gpuModelSeries: T4, gpus: 8}]
"""
FULL = (("cpu", 96000), ("memory", 2**40), ("nvidia.com/gpu", 8), ("pods", 110))
LEFT = (("cpu", 20000), ("memory", 2**40), ("nvidia.com/gpu", 2), ("pods", 110))


def test_the_cluster_of_the_design() -> None:
    parsed = documents.parse_text(CLUSTER)
    assert parsed.clusters["c-idc"] == ClusterRegistration(
        ClusterSpec(
            name="c-idc",
            labels=(("tier", "idc"),),
            provider="idc",
            region="cn-hangzhou",
            zones=("cn-hangzhou-a",),
            taints=(Taint("maintenance", "NoSchedule", "true"),),
            scoring_strategy=Scoring(packs=True, weights=(("cpu", 1), ("nvidia.com/gpu", 5))),
        ),
        ClusterAccess("idc.yaml", "admin"),
    )
    inventory = parsed.inventories["c-idc"]
    assert (inventory.health, inventory.namespaces) == (Health.READY, None)
    assert inventory.apis == frozenset({"apps/v1/Deployment"})
    assert inventory.node_classes == (
        NodeClass(
            name="a100",
            allocatable=FULL,
            nodes=4,
            labels=(("gpu", "a100"),),
            free=(FreeBlock(3, FULL), FreeBlock(1, LEFT, (1000, 400))),
            elastic=ElasticStock(10, 5, 180.0),
        ),
    )
    assert inventory.virtual_nodes == (
        VirtualNode(
            name="vk-zhangjiakou",
            labels=(("topology.kubernetes.io/region", "cn-zhangjiakou"), ("type", "virtual-kubelet")),
            taints=(Taint("virtual-kubelet.io/provider", "NoSchedule", "alibabacloud"),),
            stock=(ModelStock("T4", 8),),
        ),
    )
    assert not parsed.warnings


def test_what_is_dumped_is_read_back() -> None:
    parsed = documents.parse_text(CLUSTER)
    dumped = documents.dump_cluster(parsed.clusters["c-idc"], parsed.inventories["c-idc"])
    again = documents.parse_text(yaml.dump([dumped]))
    assert (again.clusters, again.inventories) == (parsed.clusters, parsed.inventories)
    (block,) = yaml.load(CLUSTER)[0].manifest["status"]["nodeClasses"][0]["free"][1:]
    assert dumped["status"]["nodeClasses"][0]["free"] == [{"nodes": 3}, block]


def test_a_registration_alone() -> None:
    parsed = documents.parse_text("{apiVersion: gpufleet.io/v1alpha1, kind: Cluster, metadata: {name: c}}")
    assert parsed.clusters == {"c": ClusterRegistration(ClusterSpec("c"))}
    assert parsed.inventories == {}
    assert "status" not in documents.dump_cluster(ClusterSpec("c"))


def cluster(**node_class: Any) -> dict[str, Any]:
    fields = {"name": "a", "allocatable": {"cpu": "4", "nvidia.com/gpu": "8"}, "nodes": 2, **node_class}
    status = {"nodeClasses": [{name: value for name, value in fields.items() if value is not None}]}
    return {"apiVersion": "gpufleet.io/v1alpha1", "kind": "Cluster", "metadata": {"name": "c"}, "status": status}


def inventory(**node_class: Any) -> NodeClass:
    return documents.parse_text(yaml.dump([cluster(**node_class)])).inventories["c"].node_classes[0]


def test_free_is_everything_where_nothing_is_said() -> None:
    whole = (("cpu", 4000), ("nvidia.com/gpu", 8), ("pods", 110))
    assert inventory().free == (FreeBlock(2, whole),)
    assert inventory(free=[]).free == ()
    assert inventory(free=[{"nodes": 1, "nvidia.com/gpu": 0}]).free == (FreeBlock(1, (("cpu", 4000), ("pods", 110))),)
    assert inventory(nodes=0).free == ()


def test_a_bound_of_stock_that_is_left_out() -> None:
    assert inventory(elastic={"maxNodes": 3}).elastic == ElasticStock(3, 3)
    assert inventory(elastic={"stock": 2, "provisionSeconds": 30}).elastic == ElasticStock(2, 2, 30.0)


@pytest.mark.parametrize(
    ("node_class", "path", "message"),
    [
        ({"free": [{"nodes": 2}, {"nodes": 1}]}, "free", "lists 3 nodes, but the class has 2"),
        ({"free": [{"nodes": 1, "cpu": "5"}]}, "free[0].cpu", "5 is more than the allocatable 4"),
        ({"free": [{"nodes": 1, "amd.com/gpu": 1}]}, "free[0][amd.com/gpu]", "1 is more than the allocatable 0"),
        ({"free": [{"nodes": 1, "cpu": "8Gx"}]}, "free[0].cpu", "'8Gx' is not a quantity"),
        ({"free": [{"nodes": -1}]}, "free[0].nodes", "is -1, but must be 0 or more"),
        ({"free": [{"nodes": 1, "gpuFree": [1001]}]}, "free[0].gpuFree[0]", "is 1001"),
        ({"free": [3]}, "free[0]", "must be a map, not a number"),
        ({"allocatable": {"memory": "8Gx"}}, "allocatable.memory", "'8Gx' is not a quantity"),
        ({"allocatable": {"cpu": "-1"}}, "allocatable.cpu", "'-1' is negative"),
        ({"allocatable": None}, "allocatable", "is missing"),
        ({"nodes": "2"}, "nodes", "must be a whole number, not a text"),
        ({"nodes": 1.5}, "nodes", "must be a whole number, not 1.5"),
        ({"elastic": {}}, "elastic", "has neither maxNodes nor stock"),
        ({"labels": {"a": 5}}, "labels.a", "must be a text, not a number"),
        ({"labels": {"a": "b c"}}, "labels.a", "cannot be the value of a label"),
        ({"taints": [{"key": "a", "effect": "Nope"}]}, "taints[0].effect", "is 'Nope'"),
        (
            {"taints": [{"key": "a", "effect": "NoExecute", "timeAdded": "x"}]},
            "taints[0].timeAdded",
            "'x' is not a time",
        ),
    ],
)
def test_wrong_node_classes(node_class: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(DocumentErrors) as caught:
        documents.parse_text(yaml.dump([cluster(**node_class)]))
    (error,) = caught.value.errors
    dot = "" if path.startswith("[") else "."
    assert error.path == f"status.nodeClasses[0]{dot}{path}"
    assert message in error.message


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        ({"metadata": {"name": "A_b"}}, "metadata.name", "'A_b' is not a valid name"),
        ({"metadata": {}}, "metadata.name", "is missing"),
        ({"metadata": {"name": "${Cluster 1 ID}"}}, "metadata.name", "is a placeholder"),
        ({"spec": {"access": {"kubeconfig": "a", "secretRef": {}}}}, "spec.access", "names kubeconfig and secretRef"),
        (
            {"spec": {"scoringStrategy": {"type": "RequestedToCapacityRatio"}}},
            "spec.scoringStrategy.type",
            "is 'RequestedToCapacityRatio'",
        ),
        (
            {"spec": {"scoringStrategy": {"resources": [{"name": "cpu", "weight": 0}]}}},
            "spec.scoringStrategy.resources[0].weight",
            "",
        ),
        (
            {"spec": {"scoringStrategy": {"resources": [{"name": "cpu"}, {"name": "cpu"}]}}},
            "spec.scoringStrategy.resources",
            "names a resource twice",
        ),
        ({"spec": {"access": {"context": "a"}}}, "spec.access.context", "needs a kubeconfig"),
        ({"status": {"health": "ready"}}, "status.health", "is 'ready'"),
        ({"status": {"apis": ["Deployment"]}}, "status.apis[0]", "is 'Deployment'"),
        (
            {"status": {"nodeClasses": [{"name": "a", "nodes": 1, "allocatable": {}}] * 2}},
            "status.nodeClasses[1].name",
            "'a'",
        ),
        (
            {"status": {"virtualNodes": [{"name": "v", "stock": [{"gpus": 1}]}]}},
            "status.virtualNodes[0].stock[0].gpuModelSeries",
            "is missing",
        ),
    ],
)
def test_wrong_clusters(fields: dict[str, Any], path: str, message: str) -> None:
    document = {"apiVersion": "gpufleet.io/v1alpha1", "kind": "Cluster", "metadata": {"name": "c"}, **fields}
    with pytest.raises(DocumentErrors) as caught:
        documents.parse_text(yaml.dump([document]))
    found = [(error.path, error.message) for error in caught.value.errors]
    assert found[0][0] == path
    assert message in found[0][1]


def test_all_problems_with_their_places() -> None:
    text = """
apiVersion: gpufleet.io/v1alpha1
kind: Cluster
metadata: {name: c}
status:
  nodeClasses:
  - name: a
    allocatable: {cpu: 8Gx}
    nodes: 1
    free:
    - {nodes: 2}
---
apiVersion: apps/v1
kind: Deploymnt
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
  replicas: -1
  template: {spec: {containers: [{name: c}]}}
---
a: [
"""
    with pytest.raises(DocumentErrors) as caught:
        documents.parse_text(text, "fleet.yaml")
    assert [str(error) for error in caught.value.errors][:4] == [
        "fleet.yaml, document 1, line 8: status.nodeClasses[0].allocatable.cpu: '8Gx' is not a quantity; "
        "write a number such as 500m, 2, 1.5 or 16Gi",
        "fleet.yaml, document 1, line 10: status.nodeClasses[0].free: lists 2 nodes, but the class has 1; "
        "list each node once; nodes that are not listed are full",
        "fleet.yaml, document 2, line 14: kind: Deploymnt (apps/v1) is not a known kind; "
        "did you mean Deployment (apps/v1)?",
        "fleet.yaml, document 3, line 20: spec.replicas: is -1, but must be 0 or more",
    ]
    assert caught.value.errors[4].document == 4


# --- Several documents --------------------------------------------------------------------------------------------


def test_a_list_is_its_items() -> None:
    items = [yaml.load(CLUSTER)[0].manifest, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}}]
    text = yaml.dump([{"apiVersion": "v1", "kind": "List", "items": items}])
    with pytest.raises(DocumentErrors) as caught:
        documents.parse_text(text)
    (error,) = caught.value.errors
    assert error.path == "items[1].spec.template"
    assert text.splitlines()[error.line].strip() == "kind: Deployment"
    parsed = documents.parse_text(yaml.dump([{"apiVersion": "v1", "kind": "List", "items": items[:1]}]))
    assert list(parsed.clusters) == ["c-idc"]


def test_the_same_object_twice() -> None:
    with pytest.raises(DocumentErrors, match="c-idc is already in document 1"):
        documents.parse_text(f"{CLUSTER}---{CLUSTER}")
    later = CLUSTER.replace("nodes: 4", "nodes: 5")
    parsed = documents.parse_documents([*documents.load(CLUSTER, "a"), *documents.load(later, "b")])
    assert parsed.inventories["c-idc"].node_classes[0].nodes == 5
    origin = parsed.document_of("c-idc")
    assert origin is not None
    assert origin.source == "b"


def deployment(**fields: Any) -> dict[str, Any]:
    spec = {
        "selector": {"matchLabels": {"alibabacloud.com/compute-class": "gpu"}},
        "template": {
            "metadata": {"labels": {"alibabacloud.com/compute-class": "gpu"}},
            "spec": {"containers": [{"name": "c"}]},
        },
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec, **fields}


def test_selectors_must_not_name_labels_that_schedulers_rewrite() -> None:
    parsed = documents.parse_text(yaml.dump([deployment()]))
    assert [warning.path for warning in parsed.warnings] == [
        "spec.selector.matchLabels[alibabacloud.com/compute-class]"
    ]


def test_a_manifest_that_is_too_large() -> None:
    large = deployment()
    large["metadata"]["annotations"] = {"a": "x" * 600 * 1024}
    with pytest.raises(DocumentErrors, match="has 601 KiB, more than the 512 KiB that a record may have"):
        documents.parse_text(yaml.dump([large]))


def test_the_namespace_of_objects_that_name_none() -> None:
    (workload,) = documents.parse_documents(documents.load(yaml.dump([deployment()])), namespace="ml").workloads
    assert workload == "ml/Deployment/d"


# --- Placements ---------------------------------------------------------------------------------------------------

PLACEMENT = """
apiVersion: gpufleet.io/v1alpha1
kind: Placement
workload: test/Deployment/llm
verdict: PartiallyScheduled
replicas: 12
placed: 8
unplaced: 4
assignments:
- {cluster: c-idc, replicas: 8, bound: 7, components: {main: 8}, sources: {running: 6, elastic: 2, virtual: 0}}
reasons:
- {cluster: c-ack, code: InsufficientResources, message: "needs 8 nvidia.com/gpu in one node, largest free block 6"}
"""


def test_the_placement_of_the_design() -> None:
    found = documents.parse_text(PLACEMENT).placements["test/Deployment/llm"]
    placement = found.placement
    assert (placement.verdict, placement.replicas, placement.placed, placement.unplaced) == (
        Verdict.PARTIALLY_SCHEDULED,
        12,
        8,
        4,
    )
    share = placement.share("c-idc")
    assert share is not None
    assert [share.count(source) for source in Source] == [6, 2, 0]
    assert (found.bound_in("c-idc"), found.bound_in("other")) == (7, 0)
    assert placement.reasons[0].code is Code.INSUFFICIENT_RESOURCES
    assert documents.dump_placement(placement, dict(found.bound)) == yaml.load(PLACEMENT)[0].manifest


def test_a_short_placement() -> None:
    text = (
        "{apiVersion: gpufleet.io/v1alpha1, kind: Placement, workload: a/Pod/b,"
        " assignments: [{cluster: c, replicas: 1}]}"
    )
    found = documents.parse_text(text).placements["a/Pod/b"]
    assert found.placement.shares == (ClusterShare("c", (("main", 1),), (Slot("main", "", 1),)),)
    assert (found.placement.verdict, found.placement.replicas) == (Verdict.SCHEDULED, 1)
    assert found.bound_in("c") == 1


def test_node_classes_are_written_on_request() -> None:
    placement = Placement(
        workload="a/PyTorchJob/b",
        version=Version(),
        verdict=Verdict.SCHEDULED,
        replicas=3,
        shares=(
            ClusterShare(
                "c", (("Master", 1), ("Worker", 2)), (Slot("Master", "x", 1), Slot("Worker", "y", 2, Source.ELASTIC, 1))
            ),
        ),
        reasons=(Reason(Code.NO_STOCK, "none", "d", "2 nodes"),),
        policy="PropagationPolicy/a/p",
        queue_position=3,
    )
    document = documents.dump_placement(placement, slots=True)
    assert documents.parse_text(yaml.dump([document])).placements["a/PyTorchJob/b"].placement == placement
    assert "slots" not in documents.dump_placement(placement)["assignments"][0]


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        ({"workload": "llm"}, "workload", "is 'llm'"),
        ({"verdict": "Placed"}, "verdict", "is 'Placed'"),
        ({"placed": 9}, "placed", "is 9, but the assignments have 8"),
        ({"unplaced": 5}, "unplaced", "is 5, but 4 of 12 have no cluster"),
        ({"replicas": 7}, "replicas", "is 7, but the assignments have 8"),
        ({"assignments": [{"cluster": "a", "replicas": 8, "bound": 9}]}, "assignments[0].bound", "more than the 8"),
        (
            {"assignments": [{"cluster": "a", "replicas": 8, "components": {"main": 7}}]},
            "assignments[0].components",
            "add up to 7, but replicas is 8",
        ),
        (
            {"assignments": [{"cluster": "a", "replicas": 8, "sources": {"spot": 8}}]},
            "assignments[0].sources.spot",
            "is not a source",
        ),
        ({"assignments": [{"cluster": "a", "replicas": 4}] * 2}, "assignments[1].cluster", "'a' is listed twice"),
        ({"assignments": [{"cluster": "a", "replicas": -8}]}, "assignments[0].replicas", "is -8"),
    ],
)
def test_wrong_placements(fields: dict[str, Any], path: str, message: str) -> None:
    document = {**yaml.load(PLACEMENT)[0].manifest, **fields}
    with pytest.raises(DocumentErrors) as caught:
        documents.parse_text(yaml.dump([document]))
    assert (caught.value.errors[0].path, message in caught.value.errors[0].message) == (path, True)


def test_a_reason_that_is_not_known_is_left_out() -> None:
    parsed = documents.parse_text(PLACEMENT.replace("InsufficientResources", "InsufficientResource"))
    assert parsed.placements["test/Deployment/llm"].placement.reasons == ()
    assert [warning.hint for warning in parsed.warnings] == ["did you mean InsufficientResources?"]


# --- Scenarios ----------------------------------------------------------------------------------------------------

SCENARIO = """
apiVersion: gpufleet.io/v1alpha1
kind: Scenario
documents: [fleet.yaml, {apiVersion: v1, kind: Pod}]
steps:
- {at: 10s, apply: [llm.yaml]}
- {at: 20s, scale: {workload: test/Deployment/llm, replicas: 9}}
- {at: 30s, patch: {cluster: c-ack, merge: {status: {health: Unreachable}}}}
- {at: 40s, pods: {workload: test/Deployment/llm, cluster: c-idc, unschedulable: 2, failed: 0}}
- {at: 50s, reschedule: test/Deployment/llm}
- {at: 1m, delete: test/Deployment/llm}
- {at: 70, expect: {test/Deployment/llm: {verdict: Scheduled, assignments: {c-idc: 4}}}}
"""


def test_the_scenario_of_the_design() -> None:
    scenario = documents.parse_text(SCENARIO).scenario
    assert scenario is not None
    assert scenario.documents == ("fleet.yaml", {"apiVersion": "v1", "kind": "Pod"})
    llm = "test/Deployment/llm"
    assert [(step.at, step.action) for step in scenario.steps] == [
        (10.0, scenarios.Apply(("llm.yaml",))),
        (20.0, scenarios.Scale(llm, 9)),
        (30.0, scenarios.Patch("c-ack", {"status": {"health": "Unreachable"}})),
        (40.0, scenarios.Pods(llm, "c-idc", unschedulable=2)),
        (50.0, scenarios.Reschedule(llm)),
        (60.0, scenarios.Delete(llm)),
        (70.0, scenarios.Expect(((llm, scenarios.Expectation(Verdict.SCHEDULED, assignments=(("c-idc", 4),))),))),
    ]


def test_a_null_in_a_merge_patch_deletes() -> None:
    text = SCENARIO.replace("{health: Unreachable}", "{apis: null}")
    scenario = documents.parse_text(text).scenario
    assert scenario is not None
    assert scenario.steps[2].action == scenarios.Patch("c-ack", {"status": {"apis": None}})


@pytest.mark.parametrize(
    ("step", "path", "message"),
    [
        ({"at": "10s"}, "steps[0]", "does nothing"),
        ({"at": "10s", "delete": "a/Pod/b", "reschedule": "a/Pod/b"}, "steps[0]", "has reschedule and delete"),
        ({"at": "soon", "delete": "a/Pod/b"}, "steps[0].at", "'soon' is not a duration"),
        ({"at": "-1s", "delete": "a/Pod/b"}, "steps[0].at", "'-1s' is not a duration"),
        ({"delete": "a/Pod/b"}, "steps[0].at", "is missing"),
        ({"at": "1s", "delete": "b"}, "steps[0].delete", "'b' is not a workload"),
        ({"at": "1s", "scale": {"workload": "a/Pod/b", "replicas": -1}}, "steps[0].scale.replicas", "is -1"),
        ({"at": "1s", "expect": {"a/Pod/b": {"verdict": "Ok"}}}, "steps[0].expect[a/Pod/b].verdict", "is 'Ok'"),
        ({"at": "1s", "apply": [5]}, "steps[0].apply[0]", "must be a path or a document"),
    ],
)
def test_wrong_steps(step: dict[str, Any], path: str, message: str) -> None:
    document = {"apiVersion": "gpufleet.io/v1alpha1", "kind": "Scenario", "steps": [step]}
    with pytest.raises(DocumentErrors) as caught:
        documents.parse_text(yaml.dump([document]))
    assert (caught.value.errors[0].path, message in caught.value.errors[0].message) == (path, True)


# --- Lint ---------------------------------------------------------------------------------------------------------


def test_two_policies_for_one_workload() -> None:
    policies = [
        {
            "apiVersion": "policy.karmada.io/v1alpha1",
            "kind": "PropagationPolicy",
            "metadata": {"name": name},
            "spec": {"resourceSelectors": [{"apiVersion": "apps/v1", "kind": "Deployment"}]},
        }
        for name in ("a", "b")
    ]
    parsed = documents.parse_text(yaml.dump([deployment(), *policies]))
    first, second = parsed.policies.values()
    (warning,) = documents.lint_policies(parsed, lambda _: (first, (second,)))
    assert warning.message == (
        "default/Deployment/d is matched by PropagationPolicy/default/a and by PropagationPolicy/default/b; "
        "only PropagationPolicy/default/a counts"
    )
    assert warning.document == 1
    assert documents.lint_policies(parsed, lambda _: (first, ())) == []
    assert documents.lint_policies(parsed, lambda _: (None, ())) == []


def test_inventory_without_classes() -> None:
    text = (
        "{apiVersion: gpufleet.io/v1alpha1, kind: Cluster, metadata: {name: c},"
        " status: {health: Unreachable, namespaces: [b, a]}}"
    )
    parsed = documents.parse_text(text)
    assert parsed.inventories["c"] == Inventory("c", health=Health.UNREACHABLE, namespaces=frozenset({"a", "b"}))
