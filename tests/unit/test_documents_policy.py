"""Policies: what each field means, and the rules of specification 1.4 and 15."""

from __future__ import annotations

from typing import Any

import pytest

from gpufleet.model.kinds import KindError
from gpufleet.model.policy import DivisionType, PriorityClass, PropagationPolicy, ResourcePolicy, SpreadConstraint
from gpufleet.model.selectors import LabelSelector, Requirement, Toleration
from gpufleet.wire import documents, yaml
from gpufleet.wire.documents import DocumentErrors, Freeze, Ignored, Parsed

SELECTORS = [{"apiVersion": "apps/v1", "kind": "Deployment"}]
DYNAMIC = {
    "replicaSchedulingType": "Divided",
    "replicaDivisionPreference": "Weighted",
    "weightPreference": {"dynamicWeight": "AvailableReplicas"},
}


def manifest(spec: dict[str, Any] | None = None, kind: str = "PropagationPolicy", **more: Any) -> dict[str, Any]:
    metadata = {"name": "p"} if kind.startswith("Cluster") else {"name": "p", "namespace": "test"}
    return {
        "apiVersion": "policy.one.alibabacloud.com/v1alpha1",
        "kind": kind,
        "metadata": metadata,
        "spec": {"resourceSelectors": SELECTORS, **(spec or {})},
        **more,
    }


def parse(*manifests: dict[str, Any]) -> Parsed:
    return documents.parse_text(yaml.dump(list(manifests)), "p.yaml")


def policy(spec: dict[str, Any] | None = None, **more: Any) -> PropagationPolicy:
    (found,) = parse(manifest(spec, **more)).policies.values()
    return found


def errors(document: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(DocumentErrors) as caught:
        parse(document)
    return [(error.path, error.message) for error in caught.value.errors]


def warnings(document: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(warning.path, warning.message, warning.hint) for warning in parse(document).warnings]


def test_defaults() -> None:
    found = policy()
    assert found.key == "PropagationPolicy/test/p"
    assert found.placement.division is DivisionType.DUPLICATED
    assert found.placement.groups == ()
    assert not any((found.ecs_provision, found.conflict_overwrite, found.suspend_scheduling, found.create_namespaces))
    assert (found.priority, found.selectors[0].namespace) == (0, "test")
    assert len(found.digest) == 64


def test_a_cluster_wide_policy_selects_in_every_namespace() -> None:
    found = policy(kind="ClusterPropagationPolicy")
    assert (found.key, found.selectors[0].namespace) == ("ClusterPropagationPolicy//p", "")


@pytest.mark.parametrize("api_version", ["policy.karmada.io/v1alpha1", "one.alibabacloud.com/v1alpha1"])
def test_other_groups(api_version: str) -> None:
    assert policy(apiVersion=api_version).name == "p"


def test_every_field() -> None:
    found = policy(
        {
            "resourceSelectors": [
                {"apiVersion": "apps/v1", "kind": "Deployment", "labelSelector": {"matchLabels": {"a": "b"}}}
            ],
            "autoScaling": {"ecsProvision": True, "existingCapacityFirst": True},
            "placement": {
                "clusterAffinity": {
                    "clusterNames": ["a", "b"],
                    "exclude": ["b"],
                    "labelSelector": {"matchExpressions": [{"key": "tier", "operator": "Exists"}]},
                    "fieldSelector": {"matchExpressions": [{"key": "region", "operator": "NotIn", "values": ["x"]}]},
                },
                "clusterTolerations": [{"key": "maintenance", "operator": "Exists"}],
                "spreadConstraints": [{"spreadByField": "region", "minGroups": 2, "maxGroups": 3}],
                "replicaScheduling": {"replicaSchedulingType": "Divided", "replicaDivisionPreference": "Aggregated"},
            },
            "suspension": {"scheduling": True, "dispatchingOnClusters": {"clusterNames": ["a"]}},
            "priority": 7,
            "preemption": "Always",
            "preserveResourcesOnDeletion": True,
            "conflictResolution": "Overwrite",
            "createNamespaces": True,
            "partialStatefulSets": True,
            "redispatchUserFailures": True,
            "propagateDeps": True,
            "activationPreference": "Lazy",
        }
    )
    (group,) = found.placement.groups
    assert (group.cluster_names, group.exclude) == (("a", "b"), ("b",))
    assert group.labels == LabelSelector((), (Requirement("tier", "Exists"),))
    assert group.fields == (Requirement("region", "NotIn", ("x",)),)
    assert found.placement.tolerations == (Toleration("maintenance", "Exists"),)
    assert found.placement.spread == (SpreadConstraint("region", "", 2, 3),)
    assert found.placement.division is DivisionType.AGGREGATED
    assert not found.placement.prioritized
    assert found.selectors[0].labels == LabelSelector((("a", "b"),))
    assert found.suspend_dispatching_on == ("a",)
    flags = (
        found.ecs_provision,
        found.existing_capacity_first,
        found.suspend_scheduling,
        found.preempts_policies,
        found.preserve_on_deletion,
        found.conflict_overwrite,
        found.create_namespaces,
        found.partial_statefulsets,
        found.redispatch_user_failures,
        found.propagate_deps,
        found.lazy,
    )
    assert all(flags)
    assert found.priority == 7


STATIC = {"targetCluster": {"clusterNames": ["a"]}, "weight": 2}


@pytest.mark.parametrize(
    ("scheduling", "division"),
    [
        (DYNAMIC, DivisionType.DYNAMIC),
        ({"replicaSchedulingType": "Duplicated"}, DivisionType.DUPLICATED),
        ({"replicaDivisionPreference": "Aggregated"}, DivisionType.AGGREGATED),
        ({"replicaDivisionPreference": "Weighted"}, DivisionType.STATIC),
        (
            {"replicaDivisionPreference": "Weighted", "weightPreference": {"staticWeightList": [STATIC]}},
            DivisionType.STATIC,
        ),
    ],
)
def test_division(scheduling: dict[str, Any], division: DivisionType) -> None:
    found = policy({"placement": {"replicaScheduling": scheduling}}).placement
    assert found.division is division
    weights = scheduling.get("weightPreference", {}).get("staticWeightList", [])
    assert [weight.weight for weight in found.static_weights] == [weight["weight"] for weight in weights]


@pytest.mark.parametrize(
    "placement",
    [
        {"customSchedulingType": "Gang"},
        {"replicaScheduling": {"replicaSchedulingType": "Divided", "customSchedulingType": "Gang"}},
    ],
)
def test_gang_in_both_places(placement: dict[str, Any]) -> None:
    found = policy({"placement": placement}).placement
    assert (found.gang, found.division) == (True, DivisionType.DYNAMIC)


def test_overflow_groups_follow_their_own() -> None:
    after = [{"affinityName": "b", "clusterNames": ["y"]}, {"affinityName": "c", "clusterNames": ["z"]}]
    groups = [{**GROUP, "overflowAffinities": after}, {"affinityName": "d", "clusterNames": ["w"]}]
    scheduling = {"replicaSchedulingType": "Divided", "replicaDivisionPreference": "Aggregated"}
    found = policy({"placement": {"clusterAffinities": groups, "replicaScheduling": scheduling}}).placement
    assert [group.name for group in found.groups] == ["a", "b", "c", "d"]
    assert (found.overflow, found.prioritized, found.exclusive) == (True, True, False)


def test_a_constraint_without_field_is_by_cluster_and_wants_one_group() -> None:
    found = policy({"placement": {"spreadConstraints": [{"maxGroups": 2, "minGroups": 0}]}}).placement.spread
    assert found == (SpreadConstraint("cluster", "", 1, 2),)


def test_constraints_without_effect_are_warned_about() -> None:
    static = {"replicaSchedulingType": "Divided", "replicaDivisionPreference": "Weighted"}
    spec = {"placement": {"spreadConstraints": [{"maxGroups": 2}], "replicaScheduling": static}}
    assert ("spec.placement.spreadConstraints", "is ignored with static weights") in [
        found[:2] for found in warnings(manifest(spec))
    ]


OVERFLOW = {"affinityName": "a", "clusterNames": ["c"], "overflowAffinities": [{"affinityName": "b"}]}
AGGREGATED = {"replicaSchedulingType": "Divided", "replicaDivisionPreference": "Aggregated"}


@pytest.mark.parametrize(
    ("placement", "path", "message"),
    [
        (
            {"clusterAffinities": [OVERFLOW]},
            "spec.placement.clusterAffinities",
            "has overflowAffinities, which do not go with Duplicated",
        ),
        (
            {
                "clusterAffinities": [{**OVERFLOW, "overflowAffinities": [{"affinityName": "a"}]}],
                "replicaScheduling": AGGREGATED,
            },
            "spec.placement.clusterAffinities[0].overflowAffinities[0].affinityName",
            "'a' occurs twice",
        ),
        (
            {"clusterAffinities": [{**OVERFLOW, "clusterNames": []}], "replicaScheduling": AGGREGATED},
            "spec.placement.clusterAffinities[0].overflowAffinities",
            "follow a group that means every cluster, so nothing is left for them",
        ),
    ],
)
def test_what_is_wrong_with_overflow_groups(placement: dict[str, Any], path: str, message: str) -> None:
    assert errors(manifest({"placement": placement})) == [(path, message)]


def test_names_of_overflow_groups_may_occur_in_every_group() -> None:
    groups = [{**OVERFLOW, "affinityName": name} for name in ("x", "y")]
    found = policy({"placement": {"clusterAffinities": groups, "replicaScheduling": AGGREGATED}})
    assert [group.name for group in found.placement.groups] == ["x", "b", "y", "b"]


def test_nothing_is_held_back_beside_what_holds_all_back() -> None:
    found = policy({"suspension": {"dispatching": True, "dispatchingOnClusters": {"clusterNames": []}}})
    assert (found.suspend_dispatching, found.suspend_dispatching_on) == (True, ())


def test_a_toleration_without_an_operator_means_equal() -> None:
    spec = {"placement": {"clusterTolerations": [{"key": "a", "operator": "", "value": "b"}]}}
    assert policy(spec).placement.tolerations == (Toleration("a", "Equal", "b"),)
    spec = {"placement": {"clusterTolerations": [{"key": "a", "operator": "Gt", "value": "1"}]}}
    assert errors(manifest(spec)) == [("spec.placement.clusterTolerations[0].operator", "is 'Gt'")]


GROUP = {"affinityName": "a", "clusterNames": ["c"]}


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        (
            {"placement": {"clusterAffinity": {}, "clusterAffinities": [GROUP]}},
            "spec.placement",
            "has both clusterAffinity and clusterAffinities",
        ),
        ({"resourceSelectors": []}, "spec.resourceSelectors", "is empty"),
        ({"resourceSelectors": None}, "spec.resourceSelectors", "is missing"),
        ({"resourceSelectors": [{"apiVersion": "apps/v1"}]}, "spec.resourceSelectors[0].kind", "is missing"),
        (
            {"placement": {"clusterAffinities": [GROUP, GROUP], "replicaScheduling": DYNAMIC}},
            "spec.placement.clusterAffinities[1].affinityName",
            "'a' occurs twice",
        ),
        (
            {"placement": {"clusterAffinities": [{"affinityName": "x" * 33}]}},
            "spec.placement.clusterAffinities[0].affinityName",
            "has more than 32 characters",
        ),
        (
            {"placement": {"clusterAffinities": [{"affinityName": "on prem"}], "replicaScheduling": DYNAMIC}},
            "spec.placement.clusterAffinities[0].affinityName",
            "'on prem' cannot be the name of a group",
        ),
        (
            {"placement": {"clusterAffinities": [{"affinityName": ""}]}},
            "spec.placement.clusterAffinities[0].affinityName",
            "is empty",
        ),
        (
            {"placement": {"replicaScheduling": {"replicaSchedulingType": "Divided"}}},
            "spec.placement.replicaScheduling.replicaDivisionPreference",
            "is missing, but the type is Divided",
        ),
        (
            {
                "placement": {
                    "replicaScheduling": {
                        "replicaDivisionPreference": "Weighted",
                        "weightPreference": {"staticWeightList": [{**STATIC, "weight": -1}]},
                    }
                }
            },
            "spec.placement.replicaScheduling.weightPreference.staticWeightList[0].weight",
            "is -1, but must be 1 or more",
        ),
        (
            {
                "placement": {
                    "replicaScheduling": {
                        "replicaDivisionPreference": "Weighted",
                        "weightPreference": {"staticWeightList": [STATIC, {**STATIC, "weight": 0}]},
                    }
                }
            },
            "spec.placement.replicaScheduling.weightPreference.staticWeightList[1].weight",
            "is 0, but must be 1 or more",
        ),
        (
            {"suspension": {"dispatching": True, "dispatchingOnClusters": {"clusterNames": ["a"]}}},
            "spec.suspension",
            "has dispatching and dispatchingOnClusters",
        ),
        (
            {"resourceSelectors": [{**SELECTORS[0], "namespace": "other"}]},
            "spec.resourceSelectors[0].namespace",
            "is 'other', but the policy can only select in its own namespace 'test'",
        ),
        ({"conflictResolution": "Replace"}, "spec.conflictResolution", "is 'Replace'"),
        ({"preemption": True}, "spec.preemption", "is True"),
        ({"priority": "high"}, "spec.priority", "must be a whole number, not a text"),
        (
            {"preserveResourcesOnDeletion": "yes"},
            "spec.preserveResourcesOnDeletion",
            "must be true or false, not a text",
        ),
        ({"placement": []}, "spec.placement", "must be a map, not a list"),
        (
            {
                "placement": {
                    "clusterAffinity": {
                        "fieldSelector": {"matchExpressions": [{"key": "os", "operator": "In", "values": ["x"]}]}
                    }
                }
            },
            "spec.placement.clusterAffinity.fieldSelector.matchExpressions[0].key",
            "is 'os'",
        ),
        (
            {"placement": {"spreadConstraints": [{"spreadByField": "zone", "minGroups": 3, "maxGroups": 2}]}},
            "spec.placement.spreadConstraints[0].maxGroups",
            "is 2, less than minGroups 3",
        ),
        (
            {"placement": {"spreadConstraints": [{"spreadByField": "zone", "spreadByLabel": "x"}]}},
            "spec.placement.spreadConstraints[0]",
            "has both",
        ),
        (
            {"placement": {"spreadConstraints": [{"spreadByField": "zone"}, {"spreadByField": "zone"}]}},
            "spec.placement.spreadConstraints[1]",
            "is a second constraint by zone",
        ),
        (
            {"replicaScheduling": DYNAMIC, "placement": {"replicaScheduling": {"replicaSchedulingType": "Duplicated"}}},
            "spec.replicaScheduling",
            "differs from spec.placement.replicaScheduling",
        ),
        (
            {"replicaScheduling": {"replicaSchedulingType": "Divide"}},
            "spec.replicaScheduling.replicaSchedulingType",
            "is 'Divide'",
        ),
    ],
)
def test_what_is_refused(spec: dict[str, Any], path: str, message: str) -> None:
    ((found_path, found_message),) = errors(manifest(spec))
    assert found_path == path
    assert message in found_message


def test_enumerations_list_what_is_allowed() -> None:
    with pytest.raises(DocumentErrors, match="use 'Abort' or 'Overwrite'"):
        parse(manifest({"conflictResolution": "Replace"}))


@pytest.mark.parametrize(
    ("spec", "path", "message", "hint"),
    [
        ({"suspention": {}}, "spec.suspention", "is not a known field and is ignored", "did you mean suspension?"),
        (
            {"placement": {"clusterAffinity": {"clusternames": []}}},
            "spec.placement.clusterAffinity.clusternames",
            "is not a known field and is ignored",
            "did you mean clusterNames?",
        ),
        (
            {"failover": {"application": {"purgeMode": "Never"}}},
            "spec.failover.application",
            "is not done: replicas that run, but are unhealthy, stay in their cluster",
            "replicas that find no node are moved after rescheduler.pending_after",
        ),
        (
            {"placement": {"spreadConstraints": [{"spreadByField": "region", "minGroups": 2}]}},
            "spec.placement.spreadConstraints",
            "says nothing about clusters, which Karmada demands beside other fields; any number of them is meant",
            "add spreadByField: cluster with its minGroups and maxGroups",
        ),
        (
            {"placement": {"clusterAffinities": [GROUP]}},
            "spec.placement.clusterAffinities",
            "replicas overflow into the next group only with dynamic weights, not with Duplicated",
            "the first group that takes all replicas is used",
        ),
        (
            {"resourceSelectors": [{**SELECTORS[0], "name": "x", "labelSelector": {}}]},
            "spec.resourceSelectors[0].labelSelector",
            "is ignored, because name is set",
            "",
        ),
        (
            {"resourceSelectors": [{"apiVersion": "v1", "kind": "Service"}]},
            "spec.resourceSelectors[0]",
            "Service (v1) is not a kind that is scheduled, so this selects nothing",
            "",
        ),
        (
            {"replicaScheduling": DYNAMIC, "placement": {"replicaScheduling": DYNAMIC}},
            "spec.replicaScheduling",
            "repeats spec.placement.replicaScheduling",
            "remove it",
        ),
    ],
)
def test_what_is_warned_about(spec: dict[str, Any], path: str, message: str, hint: str) -> None:
    assert warnings(manifest(spec)) == [(path, message, hint)]


def test_the_older_names() -> None:
    document = manifest(
        {
            "prune": True,
            "conflictResolution": "overwrite",
            "placement": {
                "clusterAffinity": {"clusterIds": ["a"]},
                "replicaScheduling": {
                    "replicaDivisionPreference": "Weighted",
                    "weightPreference": {"staticWeightList": [{"targetCluster": {"clusterIds": ["a"]}, "weight": 1}]},
                },
            },
        },
        apiVersion="one.alibabacloud.com/v1alpha1",
    )
    parsed = parse(document)
    (found,) = parsed.policies.values()
    assert found.placement.groups[0].cluster_names == ("a",)
    assert found.placement.static_weights[0].target.cluster_names == ("a",)
    assert (found.preserve_on_deletion, found.conflict_overwrite) == (False, True)
    assert len(parsed.warnings) == 4
    document["spec"]["prune"] = False
    assert parse(document).policies[found.key].preserve_on_deletion


def test_null_is_the_same_as_absent() -> None:
    assert policy({"placement": None, "priority": None}) == policy({"placement": None, "priority": None})
    assert policy({"placement": {"clusterAffinities": None}}).placement == policy().placement


# --- ResourcePolicy, PriorityClass, Freeze ------------------------------------------------------------------------


def resource_policy(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "scheduling.alibabacloud.com/v1alpha1",
        "kind": "ResourcePolicy",
        "metadata": {"name": "r", "namespace": "test"},
        "spec": {"units": [{"resource": "ecs"}], **spec},
    }


def test_every_field_of_a_resource_policy() -> None:
    units: list[dict[str, Any]] = [
        {
            "resource": "idc",
            "max": 2,
            "maxResources": {"cpu": "10", "memory": "4Gi"},
            "nodeSelector": {"a": "b"},
            "podLabels": {"c": "d"},
            "podAnnotations": {"e": "<any text>"},
        },
        {"resource": "eci"},
    ]
    parsed = parse(
        resource_policy(
            selector={"app": "x"},
            matchExpressions=[{"key": "k", "operator": "Exists"}],
            strategy="prefer",
            units=[{**units[0], "podAnnotations": {"e": "any text"}}, units[1]],
            preemptPolicy="BeforeNextUnit",
            ignorePreviousPod=True,
            ignoreTerminatingPod=False,
            matchLabelKeys=["pod-template-hash"],
            whenTryNextUnits={"policy": "TimeoutOrExceedMax", "timeout": "1m30s"},
        )
    )
    found = parsed.resource_policies["ResourcePolicy/test/r"]
    first = found.units[0]
    assert (first.max, first.max_resources) == (2, (("cpu", 10000), ("memory", 4 * 2**30)))
    assert (first.node_selector, first.pod_labels) == ((("a", "b"),), (("c", "d"),))
    assert first.pod_annotations == (("e", "any text"),)
    assert (found.when_try_next, found.timeout) == ("TimeoutOrExceedMax", 90.0)
    assert found.selector == LabelSelector((("app", "x"),), (Requirement("k", "Exists"),))
    assert (found.preempt_policy, found.match_label_keys) == ("BeforeNextUnit", ("pod-template-hash",))
    assert (found.ignore_previous_pod, found.ignore_terminating_pod) == (True, False)


@pytest.mark.parametrize(
    ("spelled", "policy_name", "timeout"),
    [
        ("ExceedMax", "ExceedMax", None),
        ("TimeoutOrExceedMax", "TimeoutOrExceedMax", 900.0),
        ("LackResourceAndNoterminating", "LackResourceAndNoTerminating", None),
    ],
)
def test_when_the_next_unit_is_tried(spelled: str, policy_name: str, timeout: float | None) -> None:
    parsed = parse(resource_policy(whenTryNextUnits={"policy": spelled}))
    (found,) = parsed.resource_policies.values()
    assert (found.when_try_next, found.timeout) == (policy_name, timeout)


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ({"units": []}, "spec.units", "is empty"),
        ({"units": [{"resource": "fargate"}]}, "spec.units[0].resource", "is 'fargate'"),
        ({"units": [{"resource": "ecs", "max": -1}]}, "spec.units[0].max", "is -1, but must be 0 or more"),
        (
            {"units": [{"resource": "ecs", "maxResources": {"cpu": "1x"}}]},
            "spec.units[0].maxResources.cpu",
            "'1x' is not a quantity",
        ),
        (
            {"units": [{"resource": "ecs", "podLabels": {"a": "b c"}}]},
            "spec.units[0].podLabels.a",
            "cannot be the value",
        ),
        ({"units": [{"resource": "ecs", "podLabels": {"a": 1}}]}, "spec.units[0].podLabels.a", "must be a text"),
        ({"strategy": "required"}, "spec.strategy", "is 'required'"),
        ({"whenTryNextUnits": {"policy": "Never"}}, "spec.whenTryNextUnits.policy", "is 'Never'"),
        ({"whenTryNextUnits": {"timeout": "soon"}}, "spec.whenTryNextUnits.timeout", "'soon' is not a duration"),
        (
            {"whenTryNextUnits": {"policy": "TimeoutOrExceedMax", "timeout": "999999999999h"}},
            "spec.whenTryNextUnits.timeout",
            "'999999999999h' is too long",
        ),
        ({"selector": {"app": "b c"}}, "spec.selector.app", "cannot be the value"),
        ({"matchLabelKeys": ["a", ""]}, "spec.matchLabelKeys[1]", "is empty"),
    ],
)
def test_wrong_resource_policies(spec: dict[str, Any], path: str, message: str) -> None:
    ((found_path, found_message),) = errors(resource_policy(**spec))
    assert found_path == path
    assert message in found_message


def test_a_timeout_that_nothing_waits_for_is_said() -> None:
    parsed = parse(resource_policy(whenTryNextUnits={"timeout": "5m"}))
    assert [(w.path, w.message) for w in parsed.warnings] == [
        ("spec.whenTryNextUnits.timeout", "does nothing with LackResourceOrExceedMax")
    ]


def priority_class(**fields: Any) -> dict[str, Any]:
    return {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, **fields}


def test_priority_classes() -> None:
    parsed = parse(priority_class(value=-5, globalDefault=True, preemptionPolicy="Never", description="x"))
    assert parsed.priority_classes == {"high": PriorityClass("high", -5, global_default=True, preempts=False)}
    assert errors(priority_class()) == [("value", "is missing")]
    (warning,) = parse(priority_class(value=10**9 + 1)).warnings
    assert (warning.path, warning.message[:16]) == ("value", "is 1000000001, b")
    assert not parse(priority_class(value=10**9)).warnings
    assert not parse({**priority_class(value=2 * 10**9), "metadata": {"name": "system-node-critical"}}).warnings
    assert errors(priority_class(value=2**31)) == [("value", "is 2147483648, but must be 2147483647 or less")]


def test_freeze() -> None:
    assert parse(documents.dump_freeze("network work")).freeze == Freeze("network work")
    wrong = {**documents.dump_freeze(), "metadata": {"name": "x"}}
    assert errors(wrong) == [("metadata.name", "is 'x'")]


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        ("autoscaling.one.alibabacloud.com/v1alpha1", "FederatedHPA"),
    ],
)
def test_what_is_not_supported_yet_is_ignored_and_said(api_version: str, kind: str) -> None:
    parsed = parse(
        {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "namespace": "n"}, "spec": {"a": 1}}
    )
    assert parsed.ignored == [Ignored(api_version, kind, "n", "x")]
    assert [warning.message for warning in parsed.warnings] == [f"{kind} is not supported yet; the document is ignored"]


def test_a_policy_from_its_record() -> None:
    found, notes = documents.read_policy(manifest({"replicaScheduling": DYNAMIC}), version=9)
    assert isinstance(found, PropagationPolicy)
    assert (found.version, found.placement.division) == (9, DivisionType.DYNAMIC)
    assert len(notes) == 1
    assert isinstance(documents.read_policy(resource_policy())[0], ResourcePolicy)
    assert isinstance(documents.read_policy(documents.dump_freeze())[0], Freeze)
    with pytest.raises(KindError, match=r"spec\.resourceSelectors: is empty"):
        documents.read_policy(manifest({"resourceSelectors": []}))
    with pytest.raises(KindError, match="Deployment is not a policy"):
        documents.read_policy({"apiVersion": "apps/v1", "kind": "Deployment"})
    with pytest.raises(KindError, match="Cluster is not a policy"):
        documents.read_policy({"apiVersion": "gpufleet.io/v1alpha1", "kind": "Cluster", "metadata": {"name": "c"}})
    with pytest.raises(KindError, match="Service is not a policy"):
        documents.read_policy({"apiVersion": "v1", "kind": "Service"})
    with pytest.raises(KindError, match="is not a known kind"):
        documents.read_policy({"apiVersion": "v1", "kind": "Nothing"})


# --- Lint of ResourcePolicies -------------------------------------------------------------------------------------


def units_of(spec: dict[str, Any], name: str = "rp") -> dict[str, Any]:
    return {
        "apiVersion": "scheduling.alibabacloud.com/v1alpha1",
        "kind": "ResourcePolicy",
        "metadata": {"name": name, "namespace": "test"},
        "spec": {"selector": {"app": "x"}, "units": [{"resource": "acs"}, {"resource": "ecs"}], **spec},
    }


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"preemptPolicy": "BeforeNextUnit"}, "spec.preemptPolicy"),
        ({"selector": {"alibabacloud.com/acs": "true"}}, "spec.selector[alibabacloud.com/acs]"),
        ({"matchLabelKeys": ["pod-template-hash"]}, "spec.matchLabelKeys"),
        ({"ignorePreviousPod": True}, "spec.ignorePreviousPod"),
    ],
)
def test_what_a_resource_policy_says_in_vain(spec: dict[str, Any], path: str) -> None:
    assert [found for found, _, _ in warnings(units_of(spec))] == [path]


def test_labels_that_units_write_may_not_be_selected() -> None:
    selector = {"matchLabels": {"app": "x", "tier": "a"}, "matchExpressions": [{"key": "unit", "operator": "Exists"}]}
    template = {
        "metadata": {"labels": {"app": "x", "tier": "a", "unit": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    workload = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "test"},
        "spec": {"selector": selector, "template": template},
    }
    written = {"units": [{"resource": "ecs", "podLabels": {"tier": "b", "unit": "c"}}]}
    parsed = parse(units_of(written), units_of({}, "other"), workload)
    found = [(w.path, w.message) for w in documents.lint_policies(parsed, lambda _: (None, ()))]
    assert found[0] == (
        "",
        "test/Deployment/d is selected by the ResourcePolicies other, rp; the most specific selector counts",
    )
    assert [path for path, _ in found[1:]] == [
        "spec.selector.matchLabels[tier]",
        "spec.selector.matchExpressions[0].key",
    ]
