"""What the pods of a workload refer to."""

from __future__ import annotations

from typing import Any

import pytest

from gpufleet.model import kinds
from tests.support import manifests


def referring(**spec: Any) -> frozenset[str]:
    """What a Deployment refers to whose pods have these fields."""
    manifest = manifests.deployment()
    manifest["spec"]["template"]["spec"].update(spec)
    return kinds.references(kinds.interpret(manifest))


def volume(**source: Any) -> dict[str, Any]:
    return {"volumes": [{"name": "v", **source}]}


def container(place: str = "containers", **fields: Any) -> dict[str, Any]:
    return {place: [{"name": "main", "image": "x", **fields}]}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, set()),
        (volume(configMap={"name": "a"}), {"ConfigMap/a"}),
        (volume(secret={"secretName": "a"}), {"Secret/a"}),
        (volume(persistentVolumeClaim={"claimName": "a"}), {"PersistentVolumeClaim/a"}),
        (
            volume(projected={"sources": [{"configMap": {"name": "a"}}, {"secret": {"name": "b"}}]}),
            {"ConfigMap/a", "Secret/b"},
        ),
        (volume(csi={"driver": "d", "nodePublishSecretRef": {"name": "a"}}), {"Secret/a"}),
        (volume(azureFile={"secretName": "a", "shareName": "s"}), {"Secret/a"}),
        (volume(emptyDir={}), set()),
        (
            container(envFrom=[{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "b"}}]),
            {"ConfigMap/a", "Secret/b"},
        ),
        (
            container(
                env=[
                    {"name": "x", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "k"}}},
                    {"name": "y", "valueFrom": {"secretKeyRef": {"name": "b", "key": "k"}}},
                    {"name": "z", "value": "1"},
                ]
            ),
            {"ConfigMap/a", "Secret/b"},
        ),
        (container("initContainers", envFrom=[{"secretRef": {"name": "a"}}]), {"Secret/a"}),
        ({"imagePullSecrets": [{"name": "a"}]}, {"Secret/a"}),
        ({"serviceAccountName": "runner"}, {"ServiceAccount/runner"}),
        ({"serviceAccountName": "default"}, set()),
        ({"volumes": None, "imagePullSecrets": None}, set()),
    ],
)
def test_references(spec: dict[str, Any], expected: set[str]) -> None:
    assert referring(**spec) == {f"test/{key}" for key in expected}


def test_every_template_counts() -> None:
    manifest = manifests.pytorch()
    for role, name in (("Master", "a"), ("Worker", "b")):
        template = manifest["spec"]["pytorchReplicaSpecs"][role]["template"]
        template["spec"]["serviceAccountName"] = name
    assert kinds.references(kinds.interpret(manifest)) == {"test/ServiceAccount/a", "test/ServiceAccount/b"}


def test_claims_that_a_statefulset_makes_are_its_own() -> None:
    manifest = manifests.deployment(kind="StatefulSet")
    manifest["spec"]["template"]["spec"].update(volume(persistentVolumeClaim={"claimName": "data"}))
    assert kinds.references(kinds.interpret(manifest)) == {"test/PersistentVolumeClaim/data"}
    manifest["spec"]["volumeClaimTemplates"] = [{"metadata": {"name": "data"}}]
    assert kinds.references(kinds.interpret(manifest)) == frozenset()


@pytest.mark.parametrize("kind", ["ConfigMap", "Secret", "PersistentVolumeClaim", "ServiceAccount"])
def test_what_travels_along_is_no_job_and_has_no_pods(kind: str) -> None:
    workload = kinds.interpret(manifests.supporting(kind))
    assert (workload.key, workload.components, workload.job) == (f"test/{kind}/x", (), False)


def test_a_config_map_holds_texts() -> None:
    with pytest.raises(kinds.KindError, match=r"data\.port"):
        kinds.interpret(manifests.supporting("ConfigMap", data={"port": 80}))
