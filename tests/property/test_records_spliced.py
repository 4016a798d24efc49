"""The records of a decision that are laid by hand have the bytes of the plain way."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpufleet.model.placement import Assignment, AssignmentColumns, AssignmentState, Placement, Version
from gpufleet.wire.records import dump_assignment, dump_assignments, dump_placement
from gpufleet.wire.records_base import encode
from gpufleet.wire.records_decisions import assignment_object, placement_object
from gpufleet.wire.records_keys import ASSIGNMENTS, PLACEMENTS
from tests.support.examples import examples
from tests.support.record_values import VALUES

relaxed = settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
BARE = Assignment("test/Deployment/llm", "c1", Version(1, 1), AssignmentState.ACTIVE)
NAMES = [field.name for field in fields(Assignment)]


@given(st.lists(VALUES[PLACEMENTS], min_size=1, max_size=3))
@relaxed
def test_placements(placements: list[Placement]) -> None:
    for placement in [*placements, *placements]:
        assert dump_placement(placement) == encode(placement_object(placement))


@given(VALUES[ASSIGNMENTS], VALUES[ASSIGNMENTS], st.lists(st.sampled_from(NAMES), max_size=6), st.booleans())
@relaxed
def test_assignments_that_differ_in_any_field(
    one: Assignment, other: Assignment, names: list[str], all_at_once: bool
) -> None:
    family, changed = [one], one
    for name in names:
        changed = replace(changed if all_at_once else one, **{name: getattr(other, name)})
        family.append(changed)
    for assignment in [*family, *family]:
        assert dump_assignment(assignment) == encode(assignment_object(assignment))


@given(
    VALUES[ASSIGNMENTS],
    st.dictionaries(
        st.text(min_size=1, max_size=3),
        st.tuples(st.sampled_from([(), (("main", 1),), (("a", 0), ("b", 2))]), st.sampled_from(["", "uid", '"\\'])),
        max_size=4,
    ),
)
@relaxed
def test_assignments_as_columns(one: Assignment, clusters: dict[str, tuple[tuple[tuple[str, int], ...], str]]) -> None:
    names = tuple(sorted(clusters))
    common = replace(one, cluster="", components=(), incarnation="")
    columns = AssignmentColumns(
        common, names, tuple(clusters[name][0] for name in names), tuple(clusters[name][1] for name in names)
    )
    expected = [replace(one, cluster=n, components=clusters[n][0], incarnation=clusters[n][1]) for n in names]
    assert list(columns) == expected
    assert dump_assignments(columns) == [encode(assignment_object(assignment)) for assignment in expected]


def test_values_that_are_equal_in_python_only() -> None:
    def made(number: Any) -> Assignment:
        return replace(BARE, patches=({"op": "add", "path": "/x", "value": number},), manifest={"x": number})

    for number in (1, True, 1.0, 0, False):
        assert dump_assignment(made(number)) == encode(assignment_object(made(number)))
