"""ElasticQuotaTree documents: what each field means, and the rules between quotas (specification 13.1)."""

from __future__ import annotations

from typing import Any

import pytest

from gpufleet.model.quota import MAX_JOBS, ElasticQuotaTree, Quota
from gpufleet.wire import documents, yaml
from gpufleet.wire.documents import DocumentErrors, Parsed

GPU = "nvidia.com/gpu"


def tree(root: Any, namespace: str | None = "kube-system", name: str = "eq") -> dict[str, Any]:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {
        "apiVersion": "scheduling.sigs.k8s.io/v1beta1",
        "kind": "ElasticQuotaTree",
        "metadata": metadata,
        "spec": {"root": root},
    }


def leaf(name: str = "a", **fields: Any) -> dict[str, Any]:
    return {"name": name, **fields}


def root(*children: Any, **fields: Any) -> dict[str, Any]:
    return {"name": "root", "children": list(children), **fields}


def parse(*manifests: dict[str, Any]) -> Parsed:
    return documents.parse_text(yaml.dump(list(manifests)), "q.yaml")


def read(document: dict[str, Any]) -> Quota:
    (found,) = parse(document).quota_trees.values()
    return found.root


def errors(*manifests: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(DocumentErrors) as caught:
        parse(*manifests)
    return [(error.path, error.message) for error in caught.value.errors]


def test_the_documented_example() -> None:
    amounts = {"cpu": 80, "memory": "320Gi", GPU: 16}
    parsed = parse(
        tree(
            root(
                leaf("train", min={"cpu": 40, GPU: 8}, max={**amounts, MAX_JOBS: 20}, namespaces=["team-a"]),
                leaf("infer", min={"cpu": 40, GPU: 8}, max={"cpu": 60, GPU: 12}, namespaces=["team-b", "team-c"]),
                min=amounts,
                max=amounts,
            )
        )
    )
    found = parsed.quota_trees["ElasticQuotaTree/kube-system/eq"]
    assert isinstance(found, ElasticQuotaTree)
    train, infer = found.root.children
    assert dict(found.root.max) == {"cpu": 80_000, "memory": 320 * 2**30, GPU: 16}
    assert (dict(train.min), dict(train.max)[MAX_JOBS]) == ({"cpu": 40_000, GPU: 8}, 20)
    assert (infer.namespaces, infer.lend_limit, infer.blocking) == (("team-b", "team-c"), None, False)
    assert not parsed.warnings


def test_attributes() -> None:
    attributes = {
        "resourceflavors": "A100, t4",
        "preempt-policy": "PreemptLowerPriority",
        "alibabacloud.com/lendlimit": '{"cpu": "2"}',
        "gpufleet.io/queue-policy": "Block",
    }
    (found,) = read(tree(root(leaf(attributes=attributes, max={f"{GPU}/A100": 4})))).children
    assert found.flavors == ("a100", "t4")
    assert (found.preempts_lower, found.blocking, found.lend_limit) == (True, True, (("cpu", 2000),))
    assert found.max == ((f"{GPU}/a100", 4),)


def test_zeros_are_kept() -> None:
    (found,) = read(tree(root(leaf(max={GPU: 0})))).children
    assert found.max == ((GPU, 0),)


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        (root(leaf(min={GPU: 3}, max={GPU: 2}), min={GPU: 3}), f"children[0].min[{GPU}]", "is 3, more than max 2"),
        (
            root(leaf(min={"cpu": "900m"}, max={"cpu": "0.5"}), min={"cpu": 1}),
            "children[0].min.cpu",
            "is 900m, more than max 500m",
        ),
        (
            root(leaf("a", min={GPU: 5}), leaf("b", min={GPU: 4}), min={GPU: 8}, max={GPU: 8}),
            f"min[{GPU}]",
            "is 8, but the min of its children add up to 9",
        ),
        (root(leaf(max={GPU: 9}), max={GPU: 8}), f"children[0].max[{GPU}]", "is 9, more than max 8 of root"),
        (root(min={GPU: 7}, max={GPU: 8}), f"min[{GPU}]", "is 7, but max is 8"),
        (root(leaf("a"), leaf("a")), "children[1].name", "'a' is already spec.root.children[0]"),
        (
            root(leaf("a", children=[leaf("b", children=[leaf("a")])])),
            "children[0].children[0].children[0].name",
            "'a' is also a quota above it, which makes a cycle",
        ),
        (root(leaf("root")), "children[0].name", "'root' is also a quota above it, which makes a cycle"),
        (root(leaf("")), "children[0].name", "is missing"),
        (
            root(leaf("a", namespaces=["x"]), leaf("b", namespaces=["x"])),
            "children[1].namespaces[0]",
            "'x' is already in spec.root.children[0]",
        ),
        (root(leaf("a"), namespaces=["x"]), "namespaces", "is given, but the quota has children"),
        (root(leaf(max={GPU: -1})), f"children[0].max[{GPU}]", "-1 is negative; a quantity must be 0 or more"),
        (root(leaf(max={GPU: "lots"})), f"children[0].max[{GPU}]", "'lots' is not a quantity"),
        (root(leaf(max={GPU: True})), f"children[0].max[{GPU}]", "True is not a quantity"),
        (root(leaf(max={GPU: "1.5"})), f"children[0].max[{GPU}]", "1.5 is no whole number of nvidia.com/gpu"),
        (
            root(leaf(max={f"{GPU}/A100": 1, f"{GPU}/a100": 2})),
            f"children[0].max[{GPU}/a100]",
            "is there twice, as nvidia.com/gpu/a100",
        ),
        (root(leaf(namespaces=["Team A"])), "children[0].namespaces[0]", "'Team A' cannot be the name of a namespace"),
        (root("a"), "children[0]", "is not a map"),
        (root(leaf(namespaces="x")), "children[0].namespaces", "must be a list, not a text"),
        (
            root(leaf(attributes={"alibabacloud.com/lendlimit": "2"})),
            "children[0].attributes[alibabacloud.com/lendlimit]",
            "'2' is not a JSON map",
        ),
        (root(leaf(attributes={"preempt-policy": "All"})), "children[0].attributes.preempt-policy", "is 'All'"),
        (
            root(leaf(attributes={"gpufleet.io/queue-policy": "FIFO"})),
            "children[0].attributes[gpufleet.io/queue-policy]",
            "is 'FIFO'",
        ),
    ],
)
def test_wrong_trees(value: Any, path: str, message: str) -> None:
    ((found_path, found_message),) = errors(tree(value))
    assert found_path == f"spec.root.{path}"
    assert message in found_message


def test_a_tree_that_is_too_deep() -> None:
    value = leaf("q40")
    for level in range(39, 0, -1):
        value = leaf(f"q{level}", children=[value])
    ((path, message),) = errors(tree(root(value)))
    assert path.count("children") == 32
    assert "levels deep" in message


def test_where_a_tree_must_be() -> None:
    assert errors(tree(root(), namespace="test")) == [("metadata.namespace", "is 'test'")]
    assert errors(tree(root(), namespace=None)) == [("metadata.namespace", "is missing")]
    assert errors(tree(root()), tree(root(), name="other")) == [
        ("metadata.name", "ElasticQuotaTree/kube-system/eq is already there")
    ]
    assert errors({**tree(root()), "spec": {}}) == [("spec.root", "is missing")]


def test_limits_of_the_root_that_are_not_both_given_are_said() -> None:
    found = [(w.path, w.message) for w in parse(tree(root(min={"cpu": 8}, max={GPU: 8}))).warnings]
    assert sorted(found) == [
        ("spec.root.max.cpu", "is missing, but min is 8"),
        (f"spec.root.min[{GPU}]", "is missing, but max is 8"),
    ]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (root(leaf(min={GPU: 4}), max={GPU: 8}), f"min[{GPU}]"),
        (root(leaf(children=[leaf("b", min={GPU: 4})]), min={GPU: 8}, max={GPU: 8}), f"children[0].min[{GPU}]"),
    ],
    ids=["root", "between"],
)
def test_what_is_guaranteed_below_and_left_out_above_is_said_and_the_tree_is_read(value: Any, path: str) -> None:
    parsed = parse(tree(value))
    assert [(w.path, w.message) for w in parsed.warnings] == [
        (f"spec.root.{path}", "is missing, but the min of its children add up to 4")
    ]
    assert len(parsed.quota_trees) == 1


def test_names_that_no_label_can_have_and_attributes_that_only_leaves_have_are_said() -> None:
    inner = leaf("team a", children=[leaf("b")], attributes={"resourceflavors": "a100"})
    assert [(w.path, w.message) for w in parse(tree(root(inner))).warnings] == [
        ("spec.root.children[0].name", "'team a' cannot be the value of a label, so no workload can name the quota"),
        ("spec.root.children[0].attributes.resourceflavors", "has no effect, because the quota has children"),
    ]


def test_what_is_odd_is_said() -> None:
    parsed = parse(tree({"name": "all", "children": [leaf(attributes={"preempt-polcy": "x"}, minn={})]}))
    assert [(w.path, w.message) for w in parsed.warnings] == [
        ("spec.root.name", "is 'all', but the first quota is always called root"),
        ("spec.root.children[0].attributes.preempt-polcy", "is not a known attribute and is ignored"),
        ("spec.root.children[0].minn", "is not a known field and is ignored"),
    ]
