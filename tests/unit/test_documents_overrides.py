"""Override policies as documents: what each field means, and what is wrong where."""

from __future__ import annotations

from typing import Any

import pytest

from gpufleet.model.overrides import (
    ArgumentOverrider,
    FieldOverrider,
    ImageOverrider,
    ImagePart,
    LabelOverrider,
    Operator,
    OverridePolicy,
    OverrideRule,
    PatchOperation,
)
from gpufleet.model.policy import ClusterAffinity, ResourceSelector
from gpufleet.wire import documents, yaml
from gpufleet.wire.documents import DocumentErrors
from tests.support.plans import overriding


def read(document: dict[str, Any]) -> OverridePolicy:
    (found,) = documents.parse_text(yaml.dump([document]), "o.yaml").overrides.values()
    return found


def errors(document: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(DocumentErrors) as caught:
        read(document)
    return [(error.path, error.message) for error in caught.value.errors]


def test_every_field() -> None:
    found = read(
        overriding(
            resourceSelectors=[{"apiVersion": "apps/v1", "kind": "Deployment", "name": "llm"}],
            overrideRules=[
                {
                    "targetCluster": {"clusterNames": ["idc"]},
                    "overriders": {
                        "plaintext": [{"path": "/spec/paused", "operator": "add", "value": True}],
                        "imageOverrider": [
                            {"component": "Registry", "operator": "replace", "value": "registry.idc"},
                            {"predicate": {"path": "/spec/image"}, "component": "Tag", "operator": "remove"},
                        ],
                        "commandOverrider": [{"containerName": "main", "operator": "add", "value": ["-v"]}],
                        "argsOverrider": [{"containerName": "main", "operator": "remove", "value": ["--tp=8"]}],
                        "labelsOverrider": [{"operator": "add", "value": {"site": "idc"}}],
                        "annotationsOverrider": [{"operator": "replace", "value": {"note": "x y"}}],
                        "fieldOverrider": [
                            {
                                "fieldPath": "/data/a.json",
                                "json": [{"subPath": "/port", "operator": "replace", "value": 1}],
                            },
                            {"fieldPath": "/data/b.yaml", "yaml": [{"subPath": "/host", "operator": "remove"}]},
                        ],
                    },
                }
            ],
        )
    )
    assert (found.key, found.selectors) == (
        "OverridePolicy/test/o",
        (ResourceSelector("apps/v1", "Deployment", "test", "llm"),),
    )
    assert found.rules == (
        OverrideRule(
            target=ClusterAffinity(cluster_names=("idc",)),
            images=(
                ImageOverrider(ImagePart.REGISTRY, Operator.REPLACE, "registry.idc"),
                ImageOverrider(ImagePart.TAG, Operator.REMOVE, "", "/spec/image"),
            ),
            command=(ArgumentOverrider("main", Operator.ADD, ("-v",)),),
            args=(ArgumentOverrider("main", Operator.REMOVE, ("--tp=8",)),),
            labels=(LabelOverrider(Operator.ADD, (("site", "idc"),)),),
            annotations=(LabelOverrider(Operator.REPLACE, (("note", "x y"),)),),
            fields=(
                FieldOverrider("/data/a.json", (PatchOperation("/port", Operator.REPLACE, 1),)),
                FieldOverrider("/data/b.yaml", (PatchOperation("/host", Operator.REMOVE),), yaml=True),
            ),
            plaintext=(PatchOperation("/spec/paused", Operator.ADD, True),),
        ),
    )


def test_the_older_form_is_one_rule() -> None:
    plain = [{"path": "/spec/paused", "operator": "add", "value": True}]
    found = read(overriding(targetCluster={"clusterNames": ["a"]}, overriders={"plaintext": plain}))
    assert found.rules == (
        OverrideRule(
            target=ClusterAffinity(cluster_names=("a",)),
            plaintext=(PatchOperation("/spec/paused", Operator.ADD, True),),
        ),
    )


@pytest.mark.parametrize(
    ("api_version", "kind", "key"),
    [
        ("policy.one.alibabacloud.com/v1alpha1", "OverridePolicy", "OverridePolicy/test/o"),
        ("policy.karmada.io/v1alpha1", "ClusterOverridePolicy", "ClusterOverridePolicy//o"),
        ("one.alibabacloud.com/v1alpha1", "ClusterOverridePolicy", "ClusterOverridePolicy//o"),
    ],
)
def test_kinds_and_groups(api_version: str, kind: str, key: str) -> None:
    found = read(overriding({}, kind=kind, api_version=api_version))
    assert (found.key, found.selectors, len(found.digest)) == (key, (), 64)
    assert found == documents.read_policy(overriding({}, kind=kind, api_version=api_version))[0]


RULE = "spec.overrideRules[0].overriders"


@pytest.mark.parametrize(
    ("overriders", "path", "message"),
    [
        ({"plaintext": [{"path": "spec", "operator": "add", "value": 1}]}, "plaintext[0].path", "is 'spec'"),
        ({"plaintext": [{"path": "/a", "operator": "move"}]}, "plaintext[0].operator", "is 'move'"),
        ({"plaintext": [{"operator": "remove"}]}, "plaintext[0].path", "is missing"),
        (
            {"plaintext": [{"path": "/metadata/name", "operator": "replace", "value": "x"}]},
            "plaintext[0].path",
            "/metadata/name would make it another object",
        ),
        ({"imageOverrider": [{"component": "Tag", "operator": "add"}]}, "imageOverrider[0].value", "is missing"),
        (
            {"imageOverrider": [{"component": "Digest", "operator": "remove"}]},
            "imageOverrider[0].component",
            "is 'Digest'",
        ),
        (
            {"imageOverrider": [{"predicate": {"path": "x"}, "component": "Tag", "operator": "remove"}]},
            "imageOverrider[0].predicate.path",
            "is 'x'",
        ),
        (
            {"commandOverrider": [{"containerName": "c", "operator": "replace"}]},
            "commandOverrider[0].operator",
            "is 'replace'",
        ),
        ({"argsOverrider": [{"operator": "add"}]}, "argsOverrider[0].containerName", "is missing"),
        (
            {"labelsOverrider": [{"operator": "add", "value": {"a": "no spaces"}}]},
            "labelsOverrider[0].value.a",
            "'no spaces' cannot be the value of a label",
        ),
        (
            {"labelsOverrider": [{"operator": "remove", "value": {"a~b": "x"}}]},
            "labelsOverrider[0].value.a~b",
            "'a~b' cannot be the key of a label",
        ),
        (
            {"annotationsOverrider": [{"operator": "add", "value": {"a~b/C": "x"}}]},
            "annotationsOverrider[0].value.a~b/C",
            "'a~b/C' cannot be the key of an annotation",
        ),
        ({"fieldOverrider": [{"fieldPath": "/data/x"}]}, "fieldOverrider[0]", "needs either json or yaml"),
        (
            {
                "fieldOverrider": [
                    {
                        "fieldPath": "/data/x",
                        "json": [{"subPath": "/a", "operator": "remove"}],
                        "yaml": [{"subPath": "/a", "operator": "remove"}],
                    }
                ]
            },
            "fieldOverrider[0]",
            "needs either json or yaml",
        ),
        (
            {"fieldOverrider": [{"fieldPath": "x", "json": [{"subPath": "/a", "operator": "remove"}]}]},
            "fieldOverrider[0].fieldPath",
            "is 'x'",
        ),
        (
            {"fieldOverrider": [{"fieldPath": "/x", "json": [{"subPath": "/a", "operator": "add"}]}]},
            "fieldOverrider[0].json[0].value",
            "is missing",
        ),
        (
            {"fieldOverrider": [{"fieldPath": "/x", "yaml": [{"subPath": "/a", "operator": "remove", "value": 1}]}]},
            "fieldOverrider[0].yaml[0].value",
            "is not allowed for remove",
        ),
    ],
)
def test_what_is_wrong_is_named(overriders: dict[str, Any], path: str, message: str) -> None:
    ((where, what),) = errors(overriding(overriders))
    assert where == f"{RULE}.{path}"
    assert message in what


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (overriding(), ("spec.overrideRules", "is empty")),
        (overriding({}, targetCluster={}), ("spec.targetCluster", "cannot stand beside overrideRules")),
        (overriding({}, overriders={}), ("spec.overriders", "cannot stand beside overrideRules")),
        (
            overriding({}, resourceSelectors=[{"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "other"}]),
            (
                "spec.resourceSelectors[0].namespace",
                "is 'other', but the policy can only select in its own namespace 'test'",
            ),
        ),
        (
            overriding(
                overrideRules=[
                    {
                        "targetCluster": {
                            "fieldSelector": {"matchExpressions": [{"key": "x", "operator": "In", "values": ["a"]}]}
                        },
                        "overriders": {},
                    }
                ]
            ),
            ("spec.overrideRules[0].targetCluster.fieldSelector.matchExpressions[0].key", "is 'x'"),
        ),
    ],
)
def test_what_is_wrong_with_a_rule_is_named(document: dict[str, Any], expected: tuple[str, str]) -> None:
    assert errors(document) == [expected]


def test_replicas_that_nobody_counts_are_warned_about() -> None:
    plain = [{"path": "/spec/replicas", "operator": "replace", "value": 3}]
    parsed = documents.parse_text(yaml.dump([overriding({"plaintext": plain})]), "o.yaml")
    assert [(w.path, w.message) for w in parsed.warnings] == [
        (f"{RULE}.plaintext[0].path", "sets replicas that no decision counts")
    ]
