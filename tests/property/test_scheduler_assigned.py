"""Assignments kept as columns are the same mapping as assignments kept one by one, whatever is done to them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gpufleet.model.placement import Assignment, AssignmentColumns, AssignmentState, Version
from services.scheduler.core.assigned import Assigned
from services.scheduler.core.outputs import AssignmentWrite, Outputs

KEY = "test/Deployment/llm"
CLUSTERS = ("a", "b", "c", "d")
COMMON = Assignment(KEY, "", Version(1, 1), AssignmentState.ACTIVE, uid="uid")
STEP = st.tuples(st.sampled_from(["get", "put", "pop", "in", "all"]), st.sampled_from(CLUSTERS))
WRITE = st.one_of(st.lists(st.sampled_from(CLUSTERS), unique=True).map(sorted), st.sampled_from(CLUSTERS))


def columns(clusters: list[str], version: int = 1) -> AssignmentColumns:
    return AssignmentColumns(
        replace(COMMON, version=Version(1, version)),
        tuple(clusters),
        tuple((("main", place + 1),) for place in range(len(clusters))),
        tuple(f"uid-{name}" for name in clusters),
    )


@given(st.lists(st.sampled_from(CLUSTERS), unique=True).map(sorted), st.lists(STEP, max_size=6))
@settings(deadline=None)
def test_reads_and_changes(clusters: list[str], steps: list[tuple[str, str]]) -> None:
    assigned = Assigned()
    assigned.fill(columns(clusters))
    expected = {a.cluster: a for a in columns(clusters)}
    for what, cluster in steps:
        if what == "get":
            assert assigned.get(cluster) == expected.get(cluster)
        elif what == "put":
            assigned[cluster] = expected[cluster] = replace(COMMON, cluster=cluster, version=Version(1, 2))
        elif what == "pop":
            assert assigned.pop(cluster, None) == expected.pop(cluster, None)
        elif what == "in":
            assert (cluster in assigned) is (cluster in expected)
        else:
            assert assigned == expected
        assert (list(assigned), len(assigned), bool(assigned)) == (list(expected), len(expected), bool(expected))
        assert set(assigned.versions()) == {a.version for a in expected.values()}
        same = list(expected) == clusters and expected == {a.cluster: a for a in columns(clusters)}
        assert assigned.common_to(tuple(clusters)) is None or same


@given(st.lists(st.tuples(WRITE, st.integers(1, 3)), max_size=5))
@settings(deadline=None)
def test_writes_of_a_batch_hold_the_last_of_each_cluster(writes: list[tuple[list[str] | str, int]]) -> None:
    out, expected = Outputs(), dict[str, AssignmentWrite]()
    for what, version in writes:
        if isinstance(what, str):
            write = AssignmentWrite(KEY, what, Version(1, version), None)
            out.assign(write)
            expected[what] = write
        else:
            out.assign_all(columns(what, version))
            for a in columns(what, version):
                expected[a.cluster] = AssignmentWrite(KEY, a.cluster, a.version, a)
    assert out.assignments == list(expected.values())
    found = list[AssignmentWrite]()
    for written in out.written():
        if isinstance(written, AssignmentColumns):
            found += [AssignmentWrite(KEY, a.cluster, a.version, a) for a in written]
        else:
            found.append(written)
    assert found == out.assignments
