"""`plan` on documents that were written for Karmada: its field names, its defaults, its results."""

from __future__ import annotations

from typing import Any

import pytest

from gpufleet.model.overrides import OverridePolicy
from gpufleet.model.policy import DivisionType
from gpufleet.wire.documents import DocumentErrors, Ignored, lint_clusters, lint_policies, parse_text
from gpufleet.wire.yaml import dump
from services.dispatcher.core.render import render
from services.scheduler.core.events import PolicyChanged, WorkloadSubmitted
from tests.support.plans import Json, cluster, codes, deployment, karmada, overriding, planned, shares
from tests.support.scheduling import World, policy

NGINX = "test/Deployment/nginx"


def member(name: str, *free: int, provider: str, region: str, location: str, **spec: Any) -> Json:
    described = {"provider": provider, "region": region, "zones": [f"{region}a"], **spec}
    return cluster(name, *free, labels={"location": location}, spec=described)


FLEET = (
    member("member1", 6, provider="aws", region="us-east-1", location="us"),
    member("member2", 8, 4, provider="aws", region="us-west-1", location="us"),
    member("member3", 8, 8, 2, provider="gcp", region="europe-1", location="eu"),
)


def nginx(replicas: int = 2, name: str = "nginx", **labels: str) -> Json:
    return deployment(replicas, name, labels={"app": "nginx", **labels})


def weighted(*weights: tuple[str, int], **preference: Any) -> Json:
    rules = [{"targetCluster": {"clusterNames": [name]}, "weight": weight} for name, weight in weights]
    listed = {"staticWeightList": rules} if rules else {}
    scheduling: dict[str, Any] = {"replicaSchedulingType": "Divided", "replicaDivisionPreference": "Weighted"}
    if rules or preference:
        scheduling["weightPreference"] = {**listed, **preference}
    return {"replicaScheduling": scheduling}


CLUSTER_WIDE = "ClusterPropagationPolicy"
AGGREGATED = {"replicaScheduling": {"replicaSchedulingType": "Divided", "replicaDivisionPreference": "Aggregated"}}
TWO = [{"spreadByField": "cluster", "maxGroups": 2, "minGroups": 2}]
DYNAMIC = {"dynamicWeight": "AvailableReplicas"}


def affinity(**fields: Any) -> Json:
    return {"clusterAffinity": fields}


def expressions(*found: tuple[str, str, str]) -> Json:
    return {"matchExpressions": [{"key": key, "operator": how, "values": [value]} for key, how, value in found]}


@pytest.mark.parametrize(
    ("placement", "replicas", "expected"),
    [
        pytest.param(None, 2, {"member1": 2, "member2": 2, "member3": 2}, id="nothing said: a copy in every cluster"),
        pytest.param(affinity(clusterNames=["member1", "member2"]), 2, {"member1": 2, "member2": 2}, id="names"),
        pytest.param(affinity(labelSelector={"matchLabels": {"location": "eu"}}), 2, {"member3": 2}, id="labels"),
        pytest.param(
            affinity(labelSelector=expressions(("location", "In", "us"))), 2, {"member1": 2, "member2": 2}, id="sets"
        ),
        pytest.param(
            affinity(fieldSelector=expressions(("provider", "In", "aws"), ("region", "NotIn", "us-west-1"))),
            2,
            {"member1": 2},
            id="fields",
        ),
        pytest.param(affinity(fieldSelector=expressions(("zone", "In", "europe-1a"))), 2, {"member3": 2}, id="zone"),
        pytest.param(affinity(exclude=["member1", "member3"]), 2, {"member2": 2}, id="exclude"),
        pytest.param(
            affinity(clusterNames=["member1", "member3"], labelSelector={"matchLabels": {"location": "us"}}),
            2,
            {"member1": 2},
            id="all of an affinity has to hold",
        ),
        pytest.param(
            {"replicaScheduling": {"replicaSchedulingType": "Duplicated"}, "spreadConstraints": TWO},
            2,
            {"member2": 2, "member3": 2},
            id="as many clusters as the constraint says",
        ),
        pytest.param(
            {
                "replicaScheduling": {"replicaSchedulingType": "Duplicated"},
                "spreadConstraints": [{"spreadByField": "region", "maxGroups": 2, "minGroups": 2}, *TWO],
            },
            8,
            {"member2": 8, "member3": 8},
            id="two regions with a cluster each",
        ),
        pytest.param(weighted(("member1", 1), ("member2", 2)), 3, {"member1": 1, "member2": 2}, id="static 1:2"),
        pytest.param(
            {**weighted(("member1", 1), ("member2", 2)), "spreadConstraints": TWO},
            9,
            {"member1": 3, "member2": 6},
            id="static weights ignore constraints",
        ),
        pytest.param(weighted(), 9, {"member1": 3, "member2": 3, "member3": 3}, id="no weights: all the same"),
        pytest.param(weighted(**DYNAMIC), 12, {"member1": 2, "member2": 4, "member3": 6}, id="dynamic 6:12:18"),
        pytest.param(
            weighted(("member1", 9), **DYNAMIC),
            12,
            {"member1": 2, "member2": 4, "member3": 6},
            id="dynamic weights go before static ones",
        ),
        pytest.param(AGGREGATED, 12, {"member3": 12}, id="aggregated"),
        pytest.param(AGGREGATED, 24, {"member2": 10, "member3": 14}, id="aggregated over two"),
        pytest.param(
            {
                "clusterAffinities": [
                    {"affinityName": "primary", "clusterNames": ["member1"]},
                    {"affinityName": "backup", "clusterNames": ["member2", "member3"]},
                ],
                **AGGREGATED,
            },
            8,
            {"member3": 8},
            id="the first group that takes all of it",
        ),
        pytest.param(
            {
                "clusterAffinities": [
                    {"affinityName": "primary", "clusterNames": ["member1"]},
                    {"affinityName": "backup", "clusterNames": ["member1", "member2"]},
                ],
                **AGGREGATED,
            },
            15,
            {"member1": 5, "member2": 10},
            id="a group that means clusters of the one before again",
        ),
        pytest.param(
            {
                "clusterAffinities": [
                    {"affinityName": "primary", "labelSelector": {"matchLabels": {"location": "us"}}},
                    {"affinityName": "backup", "clusterNames": ["member3"]},
                ]
            },
            2,
            {"member1": 2, "member2": 2},
            id="copies in the first group",
        ),
    ],
)
def test_placement(placement: Json | None, replicas: int, expected: dict[str, int]) -> None:
    found = planned(*FLEET, karmada("nginx", placement), nginx(replicas))[NGINX]
    assert (found.verdict.value, shares(found)) == ("Scheduled", expected)


@pytest.mark.parametrize(
    ("zones", "how", "values", "meant"),
    [
        (["a", "b"], "In", ["a"], False),
        (["a", "b"], "In", ["c", "b", "a"], True),
        (["a", "b"], "NotIn", ["b"], False),
        (["a", "b"], "NotIn", ["c"], True),
        ([], "In", ["a"], False),
        ([], "NotIn", ["a"], True),
    ],
)
def test_a_cluster_of_several_zones(zones: list[str], how: str, values: list[str], meant: bool) -> None:
    fleet = member("foo", 8, provider="aws", region="r", location="us", zones=zones)
    chosen = affinity(fieldSelector={"matchExpressions": [{"key": "zone", "operator": how, "values": values}]})
    assert shares(planned(fleet, karmada("nginx", chosen), nginx())[NGINX]) == ({"foo": 2} if meant else {})


def test_the_backup_group_when_the_primary_is_lost() -> None:
    groups = [{"affinityName": name, "clusterNames": [name]} for name in ("member1", "member3")]
    lost = {**FLEET[0], "status": {**FLEET[0]["status"], "health": "Unreachable"}}
    found = planned(lost, FLEET[2], karmada("nginx", {"clusterAffinities": groups}), nginx())[NGINX]
    assert shares(found) == {"member3": 2}


def test_a_tainted_cluster_has_to_be_tolerated() -> None:
    taint = {"key": "dedicated", "value": "special-user", "effect": "NoSchedule"}
    fleet = member("foo", 8, provider="aws", region="r", location="us", taints=[taint])
    refused = planned(fleet, karmada("nginx"), nginx())[NGINX]
    assert (shares(refused), codes(refused)) == ({}, {"ClusterTainted"})
    toleration = {"key": "dedicated", "value": "special-user", "effect": "NoSchedule"}
    placement = {"clusterTolerations": [toleration]}
    assert shares(planned(fleet, karmada("nginx", placement), nginx())[NGINX]) == {"foo": 2}


def only(name: str) -> Json:
    return affinity(clusterNames=[name])


def select(**fields: Any) -> list[Json]:
    return [{"apiVersion": "apps/v1", "kind": "Deployment", **fields}]


BY_LABEL = {"labelSelector": {"matchLabels": {"app": "nginx"}}}


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        pytest.param(
            [karmada("low", only("member2"), priority=5), karmada("up", only("member1"), priority=10)],
            "member1",
            id="explicit priority",
        ),
        pytest.param(
            [
                karmada("a-label", only("member2"), resourceSelectors=select(**BY_LABEL)),
                karmada("name", only("member1"), resourceSelectors=select(name="nginx")),
            ],
            "member1",
            id="a name before a label",
        ),
        pytest.param(
            [
                karmada("a-kind", only("member2")),
                karmada("label", only("member1"), resourceSelectors=select(**BY_LABEL)),
            ],
            "member1",
            id="a label before a kind",
        ),
        pytest.param([karmada("foo", only("member2")), karmada("bar", only("member1"))], "member1", id="by alphabet"),
        pytest.param(
            [
                karmada("a", only("member2"), kind="ClusterPropagationPolicy", priority=9),
                karmada("z", only("member1")),
            ],
            "member1",
            id="the namespace's own before one of the cluster",
        ),
        pytest.param(
            [karmada("a", only("member1"), kind="ClusterPropagationPolicy")], "member1", id="in every namespace"
        ),
        pytest.param(
            [
                karmada("a", only("member2"), resourceSelectors=select(name="other")),
                karmada("b", only("member2"), resourceSelectors=select(labelSelector={"matchLabels": {"app": "x"}})),
                karmada("c", only("member1"), resourceSelectors=select(name="nginx", namespace="test")),
            ],
            "member1",
            id="what selects nothing of it",
        ),
    ],
)
def test_which_policy(policies: list[Json], expected: str) -> None:
    assert shares(planned(*FLEET, *policies, nginx())[NGINX]) == {expected: 2}


def read(*found: Json) -> Any:
    return parse_text(dump(found), "k.yaml")


def test_defaults_are_upstreams() -> None:
    (found,) = read(karmada("p")).policies.values()
    assert found.placement.division is DivisionType.DUPLICATED
    assert (found.priority, found.preempts_policies, found.conflict_overwrite) == (0, False, False)
    assert (found.scheduler_name, found.preserve_on_deletion, found.propagate_deps) == (
        "default-scheduler",
        False,
        False,
    )
    assert (found.suspend_dispatching, found.suspend_dispatching_on, found.lazy) == (False, (), False)
    constraint = {"spreadConstraints": [{"maxGroups": 2}]}
    (found,) = read(karmada("p", constraint)).policies.values()
    assert (found.placement.spread[0].field, found.placement.spread[0].min_groups) == ("cluster", 1)
    # `replicaSchedulingType` left out is Divided.
    (found,) = read(karmada("p", {"replicaScheduling": {"replicaDivisionPreference": "Aggregated"}})).policies.values()
    assert found.placement.division is DivisionType.AGGREGATED


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        (
            {"failover": {"application": {"decisionConditions": {"tolerationSeconds": 300}}}},
            "spec.failover.application",
            "is not done: replicas that run, but are unhealthy, stay in their cluster",
        ),
        (
            {"failover": {"cluster": {"purgeMode": "Directly"}}},
            "spec.failover.cluster",
            "is not read: replicas in a cluster that does not answer are placed anew after inventory.unreachable_after",
        ),
        ({"association": True}, "spec.association", "does nothing, in Karmada neither"),
        (
            {"placement": {"workloadAffinity": {"affinity": {"groupByLabelKey": "app.group"}}}},
            "spec.placement.workloadAffinity",
            "is not done: workloads are kept neither together nor apart by their labels",
        ),
        ({"new": 1}, "spec.new", "is not a known field and is ignored"),
        (
            {"placement": {"clusterAffinity": {"clusterName": ["member1"]}}},
            "spec.placement.clusterAffinity.clusterName",
            "is not a known field and is ignored",
        ),
    ],
)
def test_what_is_not_done_is_said(spec: dict[str, Any], path: str, message: str) -> None:
    parsed = read(karmada("p", **spec))
    assert [(warning.path, warning.message) for warning in parsed.warnings] == [(path, message)]
    assert len(parsed.policies) == 1


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        ("v1", "Service"),
        ("v1", "Namespace"),
        ("apps/v1", "DaemonSet"),
        ("networking.k8s.io/v1", "Ingress"),
        ("autoscaling/v2", "HorizontalPodAutoscaler"),
        ("policy/v1", "PodDisruptionBudget"),
        ("rbac.authorization.k8s.io/v1", "ClusterRole"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        ("policy.karmada.io/v1alpha1", "FederatedResourceQuota"),
        ("autoscaling.karmada.io/v1alpha1", "CronFederatedHPA"),
        ("apps.karmada.io/v1alpha1", "WorkloadRebalancer"),
        ("work.karmada.io/v1alpha2", "ResourceBinding"),
        ("networking.karmada.io/v1alpha1", "MultiClusterService"),
        ("config.karmada.io/v1alpha1", "ResourceInterpreterCustomization"),
    ],
)
def test_what_is_kept_beside_workloads_hinders_no_plan(api_version: str, kind: str) -> None:
    beside = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "namespace": "test"}, "spec": {}}
    documents = (*FLEET, karmada("p", only("member1")), beside, nginx())
    parsed = read(*documents)
    assert parsed.ignored == [Ignored(api_version, kind, "test", "x", outside=True)]
    (warning,) = parsed.warnings
    assert (warning.document, warning.path) == (5, "kind")
    assert warning.message == f"{kind} is neither placed nor read here; the document is ignored"
    assert shares(planned(*documents)[NGINX]) == {"member1": 2}


@pytest.mark.parametrize(
    ("document", "path", "message", "hint"),
    [
        (
            karmada("p", affinity(clusterNames=["member1", "membr2"])),
            "spec.placement.clusterAffinity.clusterNames",
            "no cluster is called 'membr2'",
            "did you mean member2?",
        ),
        (
            karmada("p", {"clusterAffinities": [{"affinityName": "a", "clusterNames": ["x", "member1", "Member3"]}]}),
            "spec.placement.clusterAffinities[0].clusterNames",
            "no cluster is called 'x', 'Member3'",
            "did you mean member3?",
        ),
        (
            karmada("p", affinity(exclude=["a", "b", "c", "d"])),
            "spec.placement.clusterAffinity.exclude",
            "no cluster is called 'a', 'b', 'c' and 1 more",
            "",
        ),
        (
            karmada("p", weighted(("member1", 1), ("mmber2", 2))),
            "spec.placement.replicaScheduling.weightPreference.staticWeightList[1].targetCluster.clusterNames",
            "no cluster is called 'mmber2'",
            "did you mean member2?",
        ),
        (
            karmada("p", suspension={"dispatchingOnClusters": {"clusterNames": ["member4"]}}, kind=CLUSTER_WIDE),
            "spec.suspension.dispatchingOnClusters.clusterNames",
            "no cluster is called 'member4'",
            "did you mean member3?",
        ),
        (
            overriding(overrideRules=[{"targetCluster": {"clusterNames": ["memb3r"]}, "overriders": {}}]),
            "spec.overrideRules[0].targetCluster.clusterNames",
            "no cluster is called 'memb3r'",
            "did you mean member3?",
        ),
    ],
)
def test_clusters_that_nobody_has_are_named(document: Json, path: str, message: str, hint: str) -> None:
    parsed = read(*FLEET, document)
    (warning,) = lint_clusters(parsed, parsed.clusters)
    assert (warning.document, warning.path, warning.message, warning.hint) == (4, path, message, hint)
    # Where no cluster is known at all nothing is said of names.
    assert lint_clusters(read(document), ()) == []


HIGH = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 100}


def by_class(name: str = "high", source: str = "KubePriorityClass") -> Json:
    return {"schedulePriority": {"priorityClassSource": source, "priorityClassName": name}}


@pytest.mark.parametrize(
    ("spec", "classes", "first"),
    [
        (by_class(), [HIGH], "critical-nginx"),
        (by_class(), [], "nginx"),
        (by_class("high", "PodPriorityClass"), [HIGH], "nginx"),
        ({}, [HIGH], "nginx"),
    ],
)
def test_a_policy_ranks_what_it_selects(spec: Json, classes: list[Json], first: str) -> None:
    critical = karmada("critical", weighted(**DYNAMIC), resourceSelectors=select(name="critical-nginx"), **spec)
    rest = karmada("rest", weighted(**DYNAMIC))
    found = planned(cluster("member1", 3), critical, rest, *classes, nginx(3), nginx(3, "critical-nginx"))
    assert {key for key, placement in found.items() if placement.placed} == {f"test/Deployment/{first}"}


@pytest.mark.parametrize(
    ("given", "path", "message"),
    [
        ({"priorityClassSource": "KubePriorityClass"}, "priorityClassName", "is missing"),
        ({"priorityClassName": "high"}, "priorityClassSource", "is missing"),
        ({"priorityClassSource": "Nobody"}, "priorityClassSource", "is 'Nobody'"),
    ],
)
def test_what_is_wrong_with_a_schedule_priority(given: Json, path: str, message: str) -> None:
    with pytest.raises(DocumentErrors) as caught:
        read(karmada("p", schedulePriority=given))
    (error,) = caught.value.errors
    assert (error.path, message in error.message) == (f"spec.schedulePriority.{path}", True)


def test_a_class_that_a_policy_misses_is_warned_about() -> None:
    parsed = read(karmada("p", **by_class()))
    (warning,) = lint_policies(parsed, lambda _: (None, ()))
    assert warning.path == "spec.schedulePriority.priorityClassName"
    assert lint_policies(read(karmada("p", **by_class()), HIGH), lambda _: (None, ())) == []


@pytest.mark.parametrize(
    ("policy_kind", "override_kind", "awaited"),
    [
        ("PropagationPolicy", "OverridePolicy", "OverridePolicy"),
        ("ClusterPropagationPolicy", "ClusterOverridePolicy", "ClusterOverridePolicy"),
    ],
)
def test_overrides_that_must_be_there_first(policy_kind: str, override_kind: str, awaited: str) -> None:
    waiting = karmada("nginx", only("member1"), kind=policy_kind, dependentOverrides=["o", "later"])
    override = overriding({}, kind=override_kind)
    found = planned(*FLEET, waiting, override, nginx())[NGINX]
    assert (found.verdict.value, shares(found), codes(found)) == ("Suspended", {}, {"OverridesMissing"})
    assert found.reasons[0].message.endswith(f"waits for the {awaited} later")
    later = {**override, "metadata": {**override["metadata"], "name": "later"}}
    assert shares(planned(*FLEET, waiting, override, later, nginx())[NGINX]) == {"member1": 2}


# -- Karmada's clusters --------------------------------------------------------------------------------------------


SERVED = {"kind": "Deployment", "name": "deployments"}


def theirs(name: str, cpu: str, used: str, pods: int = 330, ready: str = "True", **spec: Any) -> Json:
    return {
        "apiVersion": "cluster.karmada.io/v1alpha1",
        "kind": "Cluster",
        "metadata": {"name": name, "labels": {"location": "us"}, "finalizers": ["karmada.io/cluster-controller"]},
        "spec": {"syncMode": "Push", "apiEndpoint": "https://x", "region": "r", "id": name, **spec},
        "status": {
            "apiEnablements": [{"groupVersion": "apps/v1", "resources": [SERVED]}],
            "conditions": [{"type": "Ready", "status": ready, "reason": "ClusterReady", "message": "healthz is down"}],
            "kubernetesVersion": "v1.31.0",
            "nodeSummary": {"readyNum": 3, "totalNum": 3},
            "resourceSummary": {
                "allocatable": {"cpu": cpu, "memory": "64Gi", "pods": str(pods)},
                "allocated": {"cpu": used, "memory": "4Gi", "pods": "10"},
                "allocating": {"cpu": "500m"},
                "allocatableModelings": [{"grade": 0, "count": 0}],
            },
        },
    }


def asking(cpu: str, replicas: int, kind: str = "Deployment") -> Json:
    found: Any = deployment(replicas, "nginx", kind=kind)
    found["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": cpu}}
    return found  # type: ignore[no-any-return]


def test_clusters_as_karmada_prints_them() -> None:
    fleet = (theirs("a", "8", "1500m"), theirs("b", "16", "3500m"), theirs("c", "24", "5500m"))
    # Room for 6, 12 and 18 replicas of a CPU each.
    found = planned(*fleet, karmada("p", weighted(**DYNAMIC)), asking("1", 12))[NGINX]
    assert shares(found) == {"a": 2, "b": 4, "c": 6}
    found = planned(*fleet, karmada("p", weighted(**DYNAMIC)), asking("1", 40))[NGINX]
    assert (found.placed, found.unplaced) == (36, 4)
    few = (theirs("a", "64", "0", pods=13), theirs("b", "64", "0", pods=12))
    found = planned(*few, karmada("p", weighted(**DYNAMIC)), asking("1", 5))[NGINX]
    assert shares(found) == {"a": 3, "b": 2}, "pods that are there count, too"
    parsed = read(*fleet)
    assert {warning.path for warning in parsed.warnings} == {"status.resourceSummary"}
    assert "sums over 3 nodes" in parsed.warnings[0].message
    models = [{"grade": 0, "ranges": [{"name": "cpu", "min": "0", "max": "1"}]}]
    parsed = read(theirs("a", "8", "0", resourceModels=models))
    assert {warning.path for warning in parsed.warnings} == {"status.resourceSummary", "spec.resourceModels"}


def test_what_karmadas_clusters_say_of_themselves() -> None:
    taint = {"key": "cluster.karmada.io/not-ready", "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"}
    fleet = (
        theirs("down", "8", "0", ready="False"),
        theirs("tainted", "8", "0", taints=[taint]),
        theirs("elsewhere", "8", "0", region="other", zone="z"),
        theirs("good", "8", "0", zones=["z1", "z2"]),
    )
    placement = {"clusterAffinity": {"fieldSelector": expressions(("region", "In", "r"))}}
    found = planned(*fleet, karmada("p", placement), asking("1", 1))[NGINX]
    assert (shares(found), codes(found)) == ({"good": 1}, {"ClusterUnreachable", "ClusterTainted"})
    parsed = read(*fleet)
    assert [parsed.clusters[name].spec.zones for name in ("elsewhere", "good")] == [("z",), ("z1", "z2")]
    stateful = [{"apiVersion": "apps/v1", "kind": "StatefulSet"}]
    found = planned(fleet[3], karmada("p", resourceSelectors=stateful), asking("1", 1, "StatefulSet"))[
        "test/StatefulSet/nginx"
    ]
    assert codes(found) == {"ApiNotServed"}


# -- overrides -----------------------------------------------------------------------------------------------------

FLAGS = ["./myapp", "--parameter1=foo", "--parameter2=bar"]


@pytest.mark.parametrize(
    ("overriders", "field", "expected"),
    [
        (
            {"imageOverrider": [{"component": "Registry", "operator": "add", "value": "test-repo"}]},
            "image",
            "test-repo/myapp:1.0.0",
        ),
        (
            {"imageOverrider": [{"component": "Repository", "operator": "replace", "value": "myapp2"}]},
            "image",
            "myapp2:1.0.0",
        ),
        ({"imageOverrider": [{"component": "Tag", "operator": "remove"}]}, "image", "myapp"),
        (
            {"commandOverrider": [{"containerName": "myapp", "operator": "add", "value": ["--cluster=member1"]}]},
            "command",
            [*FLAGS, "--cluster=member1"],
        ),
        (
            {"commandOverrider": [{"containerName": "myapp", "operator": "remove", "value": ["--parameter1=foo"]}]},
            "command",
            ["./myapp", "--parameter2=bar"],
        ),
        (
            {"argsOverrider": [{"containerName": "myapp", "operator": "add", "value": ["-v"]}]},
            "args",
            ["-v"],
        ),
        (
            {
                "plaintext": [
                    {"path": "/spec/template/spec/containers/0/image", "operator": "replace", "value": "other:2"}
                ]
            },
            "image",
            "other:2",
        ),
    ],
)
@pytest.mark.parametrize("target", [{"clusterNames": ["member1"]}, {"exclude": ["member2"]}, None])
def test_overriders(overriders: Json, field: str, expected: Any, target: Json | None) -> None:
    rule = {"overriders": overriders, **({} if target is None else {"targetCluster": target})}
    (override,) = read(overriding(overrideRules=[rule])).overrides.values()
    assert isinstance(override, OverridePolicy)
    manifest: Any = deployment(2, "myapp")
    manifest["spec"]["template"]["spec"]["containers"] = [{"name": "myapp", "image": "myapp:1.0.0", "command": FLAGS}]
    (workload,) = read(manifest).workloads.values()
    world = World()
    world.clusters(member1=1, member2=1)
    world.feed(PolicyChanged(override), PolicyChanged(policy()), WorkloadSubmitted(workload))

    def container(name: str) -> Any:
        found = render(world.assignment("test/Deployment/myapp", name))
        return found["spec"]["template"]["spec"]["containers"][0]

    assert container("member1")[field] == expected
    assert (container("member2").get(field) == expected) is (target is None)
