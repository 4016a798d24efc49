"""Hypothesis strategies for what travels on topics. Maps are sorted and amounts are not 0, as the model has them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from hypothesis import strategies as st

from gpufleet.model.cluster import (
    ClusterSpec,
    ComponentPods,
    ElasticStock,
    FreeBlock,
    Health,
    ModelStock,
    NamespaceQuota,
    NodeClass,
    NodePods,
    Scoring,
    SnapshotId,
    UnitPods,
    VirtualNode,
    WorkloadPods,
)
from gpufleet.model.kinds import MAX_REPLICAS
from gpufleet.model.log import (
    Claim,
    ClassInventory,
    ClusterAccess,
    ClusterRegistration,
    HistoryEntry,
    InventorySummary,
    LogId,
    Scale,
)
from gpufleet.model.placement import (
    Assignment,
    AssignmentState,
    Awaited,
    ClusterCap,
    ClusterShare,
    DispatchRecord,
    Eviction,
    FailureClass,
    Observation,
    ObservedPhase,
    Placement,
    Slot,
    Source,
    UnitWait,
    Variant,
    Version,
    WorkloadHealth,
)
from gpufleet.model.reasons import Code, Reason, Verdict
from gpufleet.model.selectors import Taint


def built(kind: type[Any], *positional: Any, **named: Any) -> st.SearchStrategy[Any]:
    """Returns values of a dataclass. Every field has to be given, so that a new one is not forgotten here."""
    expected = kind._fields if issubclass(kind, Version) else [item.name for item in fields(kind)]
    assert len(positional) + len(named) == len(expected), f"{kind.__name__} has the fields {expected}"
    return st.builds(kind, *positional, **named)


INT32 = 2**31 - 1
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
word = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
count = st.one_of(st.integers(0, 9), st.integers(0, INT32))
offset = st.one_of(st.integers(0, 9), st.integers(0, 2**53))
# From 2001 on a float is exact to less than a microsecond, and has less than nine digits of fraction.
moment = st.one_of(st.integers(0, 4_000_000_000).map(float), st.floats(1e9, 4e9))
some_time = moment.filter(bool)
flag = st.booleans()
taints = st.lists(
    built(
        Taint,
        key=word,
        effect=st.sampled_from(["NoSchedule", "PreferNoSchedule", "NoExecute"]),
        value=text,
        since=st.none() | some_time,
    ),
    max_size=2,
).map(tuple)
# A whole number of a manifest is read as an integer, however it was written.
fractions = st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: not number.is_integer())
numbers = st.integers(-(2**53), 2**53) | fractions
scalar = st.one_of(st.none(), flag, numbers, text)
value = st.recursive(
    scalar, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2), max_leaves=4
)
document = st.dictionaries(text, value, max_size=3)


def sorted_pairs(names: Any, values: Any) -> Any:
    return st.dictionaries(names, values, max_size=3).map(lambda pairs: tuple(sorted(pairs.items())))


def tuples(items: Any) -> Any:
    return st.lists(items, max_size=2).map(tuple)


labels = sorted_pairs(text, text)
counts = sorted_pairs(text, count)
amounts = sorted_pairs(st.sampled_from(["cpu", "memory", "pods", "nvidia.com/gpu"]), st.integers(1, 2**50))
version = built(Version, count, count)
snapshot = built(SnapshotId, text, count, count)
names = st.none() | st.frozensets(text, max_size=3)


@st.composite
def node_classes(draw: st.DrawFn) -> NodeClass:
    free = draw(tuples(built(FreeBlock, st.integers(0, 1000), amounts, tuples(count), tuples(count))))
    result: NodeClass = draw(
        built(
            NodeClass,
            name=word,
            allocatable=amounts,
            nodes=st.integers(sum(block.nodes for block in free), INT32),
            labels=labels,
            taints=taints,
            free=st.just(free),
            elastic=st.none() | built(ElasticStock, count, count, st.floats(0, 1e6)),
        )
    )
    return result


scorings = st.none() | built(Scoring, flag, tuples(st.tuples(word, st.integers(1, 100))))
registrations = built(
    ClusterRegistration,
    spec=built(ClusterSpec, word, labels, text, text, tuples(text), taints, scorings),
    access=built(ClusterAccess, text, text, st.none() | document, st.none() | document, st.none() | document, flag),
    version=st.just(340),
)
parts = st.one_of(
    built(ClassInventory, word, snapshot, node_classes()),
    built(
        WorkloadPods,
        word,
        word,
        snapshot,
        sorted_pairs(
            text,
            built(
                ComponentPods,
                count,
                count,
                count,
                count,
                count,
                tuples(moment),
                count,
                st.none() | some_time,
                flag,
                text,
                tuples(built(UnitPods, text, count, count, count)),
                count,
                tuples(built(NodePods, word, count, count, text)),
                tuples(built(NodePods, word, count, count, text)),
            ),
        ),
    ),
    built(
        InventorySummary,
        word,
        snapshot,
        moment,
        st.sampled_from(Health),
        text,
        names,
        names,
        tuples(built(VirtualNode, word, labels, taints, st.none() | tuples(built(ModelStock, word, count)))),
        tuples(text),
        tuples(text),
        tuples(built(NamespaceQuota, word, tuples(text), amounts, amounts)),
    ),
)
placements = built(
    Placement,
    workload=word,
    version=version,
    verdict=st.sampled_from(Verdict),
    replicas=count,
    shares=tuples(
        built(
            ClusterShare,
            word,
            counts,
            tuples(built(Slot, word, text, count, st.sampled_from(Source), st.none() | count, text)),
        )
    ),
    reasons=tuples(built(Reason, st.sampled_from(Code), text, text, text)),
    policy=text,
    uid=text,
    workload_version=offset,
    inputs=labels,
    decided_at=moment,
    queue_position=st.none() | count,
    leaving=tuples(text),
    arrival=offset,
    job=flag,
    movable=flag,
    redispatch_user_failures=flag,
    min_member=st.none() | count,
    unit_waits=tuples(built(UnitWait, word, text, moment)),
    edition=st.none() | document,
    queue=text,
    priority=st.integers(-(2**31), 2**31 - 1),
    waiting_since=st.none() | moment,
    group=text,
)
assignments = built(
    Assignment,
    workload=word,
    cluster=word,
    version=version,
    state=st.sampled_from(AssignmentState),
    manifest=document,
    components=counts,
    division=counts,
    patches=tuples(document),
    overrides=tuples(document),
    uid=text,
    waits_for=tuples(built(Awaited, word, version, text)),
    job=flag,
    conflict_overwrite=flag,
    preserve_on_deletion=flag,
    create_namespaces=flag,
    suspended=flag,
    orphan=flag,
    incarnation=text,
    unit=text,
    variants=tuples(built(Variant, text, word, counts, tuples(document), tuples(document))),
)
observations = built(
    Observation,
    workload=word,
    cluster=word,
    version=version,
    phase=st.sampled_from(ObservedPhase),
    incarnation=text,
    health=st.sampled_from(WorkloadHealth),
    failure=st.sampled_from(FailureClass),
    ready=count,
    code=text,
    message=text,
    observed_at=moment,
    object_uid=text,
    status=document,
)
evictions = built(
    Eviction,
    workload=word,
    judged=version,
    caps=tuples(built(ClusterCap, word, count, moment, word, text, tuples(word))),
    attempts=count,
    history=tuples(built(DispatchRecord, word, moment, moment, text)),
    not_before=moment,
    give_up=flag,
    at=moment,
)
scales = built(Scale, word, st.integers(0, MAX_REPLICAS), text, moment, st.just(340))
claims = st.one_of(built(LogId, word), built(Claim, word, word, st.none() | count, moment))
histories = built(
    HistoryEntry,
    workload=word,
    version=version,
    decided_at=moment,
    trigger=text,
    documents=tuples(document),
    settings=document,
    placement=st.none() | placements,
    omitted=tuples(text),
    state=document,
    because=text,
)
VALUES = {
    "gpufleet.clusters": registrations,
    "gpufleet.scales": scales,
    "gpufleet.inventory": parts,
    "gpufleet.placements": placements,
    "gpufleet.assignments": assignments,
    "gpufleet.observations": observations,
    "gpufleet.evictions": evictions,
    "gpufleet.epochs": claims,
    "gpufleet.history": histories,
}
