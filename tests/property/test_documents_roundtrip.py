"""What is written is read back, and nothing that a user writes is a crash."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gpufleet.model import kinds
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
from gpufleet.model.kinds import KindError
from gpufleet.model.log import ClusterAccess, ClusterRegistration
from gpufleet.model.placement import ClusterShare, Placement, Slot, Source, Version
from gpufleet.model.reasons import Code, Reason, Verdict
from gpufleet.model.resources import Resources, labels, resources
from gpufleet.model.selectors import Taint
from gpufleet.wire import documents, yaml
from gpufleet.wire.documents import DocumentErrors
from tests.support import manifests
from tests.support.examples import examples

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,5}(-[a-z0-9]{1,5})?", fullmatch=True)
VALUES = st.sampled_from(["", "a", "on", "012", "1.5", "null", "true", "A_b-c.9"])
LABELS = st.dictionaries(st.sampled_from(["tier", "gpu", "topology.kubernetes.io/region"]), VALUES).map(labels)
TEXTS = st.sampled_from(["", "x", "a: b", "# no comment", "'quoted'", "line\nbreak", "${not this", "12:30", "é✓"])
TAINTS = st.builds(
    Taint,
    st.sampled_from(["a", "b.c/d"]),
    st.sampled_from(["NoSchedule", "PreferNoSchedule", "NoExecute"]),
    VALUES,
    st.none() | st.integers(0, 2**32).map(float),
)
SCORINGS = st.none() | st.builds(
    Scoring,
    st.booleans(),
    st.dictionaries(st.sampled_from(["cpu", "memory", "nvidia.com/gpu"]), st.integers(1, 100)).map(
        lambda weights: tuple(sorted(weights.items()))
    ),
)


@st.composite
def node_classes(draw: st.DrawFn, name: str) -> NodeClass:
    allocatable = draw(st.dictionaries(st.sampled_from(["cpu", "memory", "nvidia.com/gpu"]), st.integers(1, 2**42)))
    allocatable["pods"] = draw(st.integers(0, 500))

    def free() -> Resources:
        return resources({name: draw(st.integers(0, amount)) for name, amount in allocatable.items()})

    counts = draw(st.lists(st.integers(1, 5), max_size=4))
    blocks = tuple(
        FreeBlock(count, free(), tuple(draw(st.lists(st.integers(0, 1000), max_size=2)))) for count in counts
    )
    elastic = st.builds(ElasticStock, st.integers(0, 9), st.integers(0, 9), st.sampled_from([0.0, 0.5, 180.0]))
    return NodeClass(
        name=name,
        allocatable=resources(allocatable),
        nodes=sum(counts) + draw(st.integers(0, 3)),
        labels=draw(LABELS),
        taints=tuple(draw(st.lists(TAINTS, max_size=2))),
        free=blocks,
        elastic=draw(st.none() | elastic),
    )


@st.composite
def clusters(draw: st.DrawFn) -> tuple[ClusterRegistration, Inventory | None]:
    name = draw(NAMES)
    access = draw(
        st.sampled_from(
            [
                ClusterAccess(),
                ClusterAccess("a.yaml", "b"),
                ClusterAccess(secret_ref={"name": "x"}),
                ClusterAccess(simulated={}),
            ]
        )
    )
    spec = ClusterSpec(
        name=name,
        labels=draw(LABELS),
        provider=draw(TEXTS.filter(lambda t: not t.startswith("$"))),
        region=draw(NAMES),
        zones=tuple(draw(st.lists(NAMES, max_size=2))),
        taints=tuple(draw(st.lists(TAINTS, max_size=2))),
        scoring_strategy=draw(SCORINGS),
    )
    registration = ClusterRegistration(spec, access)
    if draw(st.booleans()):
        return registration, None
    models = st.dictionaries(NAMES, st.integers(0, 9)).map(lambda m: tuple(ModelStock(*pair) for pair in m.items()))
    inventory = Inventory(
        cluster=name,
        health=draw(st.sampled_from(list(Health))),
        message=draw(TEXTS),
        apis=draw(st.none() | st.frozensets(st.sampled_from(["apps/v1/Deployment", "v1/Pod"]))),
        namespaces=draw(st.none() | st.frozensets(NAMES)),
        node_classes=tuple(draw(node_classes(n)) for n in draw(st.lists(NAMES, max_size=3, unique=True))),
        virtual_nodes=tuple(
            VirtualNode(n, draw(LABELS), tuple(draw(st.lists(TAINTS, max_size=1))), draw(st.none() | models))
            for n in draw(st.lists(NAMES, max_size=2, unique=True))
        ),
    )
    return registration, inventory


def as_yaml(document: dict[str, Any]) -> str:
    return yaml.dump([document])


def as_json(document: dict[str, Any]) -> str:
    return json.dumps(document)


@given(pair=clusters(), write=st.sampled_from([as_yaml, as_json]))
@settings(max_examples=60, deadline=None)
def test_clusters(pair: tuple[ClusterRegistration, Inventory | None], write: Any) -> None:
    registration, inventory = pair
    parsed = documents.parse_text(write(documents.dump_cluster(registration, inventory)))
    assert parsed.clusters == {registration.name: registration}
    assert parsed.inventories.get(registration.name) == inventory
    assert not parsed.warnings


@st.composite
def placements(draw: st.DrawFn) -> tuple[Placement, dict[str, int]]:
    shares, bound = [], {}
    for cluster in sorted(draw(st.lists(NAMES, max_size=3, unique=True))):
        slots = tuple(
            Slot(
                component,
                draw(NAMES),
                draw(st.integers(1, 9)),
                draw(st.sampled_from(list(Source))),
                draw(st.none() | st.just(1)),
                draw(st.sampled_from(["", "acs-1a2b3c"])),
            )
            for component in draw(st.lists(st.sampled_from(["main", "Worker"]), min_size=1, max_size=3))
        )
        counts = {c: sum(s.count for s in slots if s.component == c) for c in sorted({s.component for s in slots})}
        share = ClusterShare(cluster, tuple(counts.items()), slots)
        shares.append(share)
        if draw(st.booleans()):
            bound[cluster] = draw(st.integers(0, share.replicas))
    placed = sum(share.replicas for share in shares)
    reasons = st.builds(Reason, st.sampled_from(list(Code)), TEXTS, NAMES | st.just(""), TEXTS)
    placement = Placement(
        workload="test/Deployment/llm",
        version=Version(),
        verdict=draw(st.sampled_from(list(Verdict))),
        replicas=placed + draw(st.integers(0, 5)),
        shares=tuple(shares),
        reasons=tuple(draw(st.lists(reasons, max_size=2))),
        policy=draw(st.sampled_from(["", "PropagationPolicy/test/p"])),
        queue_position=draw(st.none() | st.integers(0, 9)),
        group=draw(st.sampled_from(["", "idc"])),
    )
    return placement, bound


@given(pair=placements(), write=st.sampled_from([as_yaml, as_json]))
@settings(max_examples=60, deadline=None)
def test_placements(pair: tuple[Placement, dict[str, int]], write: Any) -> None:
    placement, bound = pair
    (found,) = documents.parse_text(write(documents.dump_placement(placement, bound, slots=True))).placements.values()
    assert found.placement == placement
    assert dict(found.bound) == bound
    document = documents.dump_placement(placement)
    assert document["placed"] + document["unplaced"] == document["replicas"]
    assert all(sum(a["sources"].values()) == a["replicas"] for a in document["assignments"])


# --- Digest -------------------------------------------------------------------------------------------------------


def shuffled(value: Any, data: st.DataObject) -> Any:
    if isinstance(value, dict):
        return {key: shuffled(value[key], data) for key in data.draw(st.permutations(list(value)))}
    return [shuffled(item, data) for item in value] if isinstance(value, list) else value


@given(data=st.data(), kind=st.sampled_from(sorted(manifests.every_kind())))
@settings(max_examples=40, deadline=None)
def test_the_order_of_keys_does_not_change_the_digest(data: st.DataObject, kind: str) -> None:
    manifest = manifests.every_kind()[kind]
    other = shuffled(manifest, data)
    assert kinds.digest(other, "u") == kinds.digest(manifest, "u")
    assert kinds.digest(yaml.load(as_yaml(other))[0].manifest) == kinds.digest(manifest)


# --- Anything may be wrong ----------------------------------------------------------------------------------------

JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        True,
        -1,
        0,
        1.5,
        10**30,
        "",
        "x",
        "8Gx",
        "1e999",
        [],
        [None],
        [[]],
        {},
        {"a": None},
        {"": {}},
        "${x}",
        "é" * 70,
    ]
) | st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def every_document() -> list[dict[str, Any]]:
    data = Path(__file__).parent.parent / "data" / "articles"
    found = [dict(d.manifest) for path in sorted(data.glob("*.yaml")) for d in yaml.load(path.read_text())]
    text = """
apiVersion: gpufleet.io/v1alpha1
kind: Cluster
metadata: {name: c, labels: {a: b}}
spec: {provider: p, zones: [z], taints: [{key: k, effect: NoSchedule}], access: {kubeconfig: k}}
status:
  apis: [apps/v1/Deployment]
  nodeClasses:
  - {name: a, allocatable: {cpu: 4}, nodes: 2, free: [{nodes: 1, cpu: 1, gpuFree: [1]}], elastic: {stock: 1}}
  virtualNodes: [{name: v, stock: [{gpuModelSeries: T4, gpus: 8}]}]
---
apiVersion: gpufleet.io/v1alpha1
kind: Placement
workload: a/Pod/b
replicas: 2
assignments: [{cluster: c, replicas: 2, bound: 1, components: {main: 2}, sources: {running: 2}, slots: [{count: 2}]}]
reasons: [{code: NoStock}]
---
apiVersion: gpufleet.io/v1alpha1
kind: Scenario
documents: [a.yaml]
steps:
- {at: 1s, expect: {a/Pod/b: {verdict: Scheduled, assignments: {c: 1}, reasons: [{code: x}]}}}
- {at: 2s, delete: a/Pod/b}
---
apiVersion: policy.karmada.io/v1alpha1
kind: ClusterPropagationPolicy
metadata: {name: p}
spec:
  resourceSelectors: [{apiVersion: apps/v1, kind: Deployment, labelSelector: {matchLabels: {a: b}}}]
  suspension: {dispatchingOnClusters: {clusterNames: [a]}}
  placement:
    clusterAffinity: {clusterNames: [a], fieldSelector: {matchExpressions: [{key: zone, operator: In, values: [x]}]}}
    clusterTolerations: [{key: a}]
    spreadConstraints: [{spreadByField: zone}]
    replicaScheduling:
      replicaDivisionPreference: Weighted
      weightPreference: {staticWeightList: [{targetCluster: {}, weight: 1}]}
---
{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: p}, value: 1}
---
{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: [{name: a}]}}]}
"""
    return found + [dict(d.manifest) for d in yaml.load_strict(text)] + list(manifests.every_kind().values())


DOCUMENTS = every_document()


def spoil(value: Any, data: st.DataObject, junk: Any) -> Any:
    """Puts junk in a place of a document, or takes the place away."""
    value = copy.deepcopy(value)
    here = value
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(here[key], dict | list) and here[key] and data.draw(st.integers(0, 4)):
            here = here[key]
            continue
        if isinstance(here, dict) and data.draw(st.booleans()):
            del here[key]
        else:
            here[key] = junk
        return value


@given(data=st.data(), document=st.sampled_from(DOCUMENTS), junk=JUNK)
@settings(max_examples=examples(400), deadline=None)
def test_a_spoilt_document_is_read_or_refused(data: st.DataObject, document: dict[str, Any], junk: Any) -> None:
    spoilt = spoil(document, data, junk)
    try:
        parsed = documents.parse_text(as_json(spoilt), "f")
    except DocumentErrors as error:
        wrong = [problem for problem in error.errors if not problem.message or problem.line < 1]
        parsed = documents.Parsed()
        refused = bool(error.errors)
    else:
        wrong, refused = [], False
    assert not wrong
    assert parsed.objects or refused or spoilt.get("items") in ([], [[]])
    for key, workload in parsed.workloads.items():
        same = kinds.with_replicas(workload.manifest, [(c.name, c.replicas) for c in workload.components])
        assert {(c.name, c.replicas) for c in kinds.interpret(same).components} == {
            (c.name, c.replicas) for c in workload.components
        }
        assert {t.component for t in kinds.pod_templates(same)} >= {c.name for c in workload.components}
        assert workload.key == key


@given(data=st.data(), kind=st.sampled_from(sorted(manifests.every_kind())), junk=JUNK)
@settings(max_examples=100, deadline=None)
def test_a_spoilt_manifest_is_read_or_a_kind_error(data: st.DataObject, kind: str, junk: Any) -> None:
    spoilt = spoil(manifests.every_kind()[kind], data, junk)
    with contextlib.suppress(KindError):
        assert kinds.interpret(spoilt).kind == kind


@given(st.text(max_size=200) | st.binary(max_size=200) | st.text("{}[]:,-&*#'\"\n\t ab01<>|!%", max_size=60))
@settings(max_examples=examples(300), deadline=None)
def test_any_text_is_read_or_refused(text: str | bytes) -> None:
    for document in yaml.load(text):
        assert document.errors or isinstance(document.manifest, dict)
