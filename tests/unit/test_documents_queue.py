"""Queue documents of kube-queue: what each field means, and which quota a queue is of (specification 13.4)."""

from __future__ import annotations

from typing import Any

import pytest

from gpufleet.model.quota import QueueRule, queue_name
from gpufleet.wire import documents, yaml
from gpufleet.wire.documents import DocumentErrors, Parsed, read_policy

TREE = {
    "apiVersion": "scheduling.sigs.k8s.io/v1beta1",
    "kind": "ElasticQuotaTree",
    "metadata": {"name": "eq", "namespace": "kube-system"},
    "spec": {
        "root": {"name": "root", "children": [{"name": "teams", "children": [{"name": "Team_A"}, {"name": "b"}]}]}
    },
}


def queue(name: str = "root-teams-b", namespace: str | None = "kube-queue", **spec: Any) -> dict[str, Any]:
    annotations = spec.pop("annotations", {})
    metadata = {"name": name, "annotations": annotations} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": "scheduling.x-k8s.io/v1alpha1", "kind": "Queue", "metadata": metadata, "spec": spec}


def parse(*manifests: dict[str, Any]) -> Parsed:
    return documents.parse_text(yaml.dump(list(manifests)), "q.yaml")


def read(manifest: dict[str, Any]) -> QueueRule:
    (found,) = parse(manifest).queues.values()
    return found


def warnings(*manifests: dict[str, Any]) -> list[tuple[str, str]]:
    return [(warning.path, warning.message) for warning in parse(*manifests).warnings]


@pytest.mark.parametrize(
    ("spec", "blocking", "priority"),
    [
        ({}, False, 0),
        ({"queuePolicy": "Priority", "priority": 5}, False, 5),
        ({"queuePolicy": "Block", "priority": -1}, True, -1),
        ({"queuePolicy": "FIFO"}, False, 0),
    ],
)
def test_policy_and_priority(spec: dict[str, Any], blocking: bool, priority: int) -> None:
    found = read(queue(**spec))
    assert (found.key, found.blocking, found.priority) == ("Queue/kube-queue/root-teams-b", blocking, priority)


@pytest.mark.parametrize(
    ("manifest", "path", "message"),
    [
        (queue(namespace="default"), "metadata.namespace", "is 'default'"),
        (queue(queuePolicy="Strict"), "spec.queuePolicy", "is 'Strict'"),
        (queue(priority="high"), "spec.priority", "must be a whole number, not a text"),
    ],
)
def test_what_is_wrong_names_its_field(manifest: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(DocumentErrors) as caught:
        parse(manifest)
    assert [(error.path, error.message) for error in caught.value.errors] == [(path, message)]


def test_what_has_no_effect_is_said() -> None:
    manifest = queue(queuePolicy="Round", priorityClassName="high", annotations={"kube-queue/max-depth": "100"})
    assert warnings(manifest) == [
        ("metadata.annotations.kube-queue/max-depth", "has no effect: queues are not bounded"),
        ("spec.queuePolicy", "Round is read as Priority: by priority, then by arrival"),
        ("spec.priorityClassName", "is ignored"),
    ]


@pytest.mark.parametrize(
    ("name", "annotation", "leaf"),
    [
        ("root-teams-team-a", "", ("root", "teams", "Team_A")),
        ("teams-team-a", "", ("root", "teams", "Team_A")),
        ("anything", "root/teams/Team_A", ("root", "teams", "Team_A")),
        ("anything", "Team_A", ("root", "teams", "Team_A")),
        ("root-teams-team-a", "root/teams/b", ("root", "teams", "b")),
    ],
)
def test_a_queue_is_of_the_quota_that_it_names(name: str, annotation: str, leaf: tuple[str, ...]) -> None:
    manifest = queue(name, annotations={"kube-queue/quota-fullname": annotation} if annotation else {})
    (tree,) = parse(TREE).quota_trees.values()
    assert [path for path in tree.paths() if read(manifest).means(path)] == [leaf]
    assert warnings(TREE, manifest) == []


def test_a_queue_of_no_quota_is_told() -> None:
    assert warnings(TREE, queue("root-teams-c")) == [("metadata.name", "is the queue of no leaf of the tree")]


def test_long_names_are_cut_in_front() -> None:
    assert queue_name("root/" + "x" * 60) == "x" * 58


def test_it_is_read_from_the_policies_topic() -> None:
    found, told = read_policy(queue(queuePolicy="Block"), 7)
    assert isinstance(found, QueueRule)
    assert (found.version, found.blocking, told) == (7, True, ())
