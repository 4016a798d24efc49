"""Quantities, selectors and names, by example."""

from __future__ import annotations

import pytest

from gpufleet.model import names, quantity
from gpufleet.model.resources import parse_resources
from gpufleet.model.selectors import LabelSelector, NodeSelectorTerm, Requirement, Taint, Toleration, untolerated


@pytest.mark.parametrize(
    ("text", "resource", "expected"),
    [
        ("500m", "cpu", 500),
        ("0.5", "cpu", 500),
        (2, "cpu", 2000),
        (1.5, "cpu", 1500),
        ("1u", "cpu", 1),
        ("16Gi", "memory", 16 * 2**30),
        ("5G", "memory", 5 * 10**9),
        ("1e3", "memory", 1000),
        ("1E", "memory", 10**18),
        ("100m", "memory", 1),
        ("8", "nvidia.com/gpu", 8),
        (" 8 ", "nvidia.com/gpu", 8),
        ("-0", "cpu", 0),
    ],
)
def test_parse(text: str | float, resource: str, expected: int) -> None:
    assert quantity.parse(text, resource) == expected


@pytest.mark.parametrize(
    ("amount", "resource", "expected"),
    [
        (1500, "cpu", "1500m"),
        (2000, "cpu", "2"),
        (2**34, "memory", "16Gi"),
        (1000, "memory", "1000"),
        (0, "memory", "0"),
        (1024, "pods", "1024"),
    ],
)
def test_render(amount: int, resource: str, expected: str) -> None:
    assert quantity.render(amount, resource) == expected


def test_what_is_there_is_rounded_down() -> None:
    assert quantity.parse("1500u", "cpu", round_up=False) == 1
    assert quantity.parse("1500u", "cpu") == 2


def test_the_error_names_resource_and_remedy() -> None:
    with pytest.raises(quantity.QuantityError, match=r"memory: '8Gx' is not a quantity; write a number such as 500m"):
        parse_resources({"cpu": "1", "memory": "8Gx"})


def test_true_is_not_one() -> None:
    assert quantity.parse(1) == 1
    with pytest.raises(quantity.QuantityError):
        quantity.parse(True)


@pytest.mark.parametrize(
    ("operator", "values", "labels", "expected"),
    [
        ("In", ("a", "b"), {"k": "b"}, True),
        ("In", ("a",), {}, False),
        ("NotIn", ("a",), {}, True),
        ("NotIn", ("a",), {"k": "a"}, False),
        ("Exists", (), {"k": ""}, True),
        ("DoesNotExist", (), {"k": ""}, False),
        ("Gt", ("5",), {"k": "10"}, True),
        ("Lt", ("5",), {"k": "10"}, False),
        ("Gt", ("5",), {"k": "many"}, False),
        ("Unknown", (), {"k": "a"}, False),
    ],
)
def test_requirements(operator: str, values: tuple[str, ...], labels: dict[str, str], expected: bool) -> None:
    assert Requirement("k", operator, values).matches(labels) is expected


def test_an_empty_selector_is_everything_but_an_empty_term_nothing() -> None:
    assert LabelSelector().matches({})
    assert not NodeSelectorTerm().matches({"a": "b"})
    by_name = NodeSelectorTerm((), (Requirement("metadata.name", "In", ("n1",)),))
    assert by_name.matches({}, "n1")
    assert not by_name.matches({})


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        (Toleration("k", "Equal", "v", "NoSchedule"), True),
        (Toleration("k", "Equal", "v"), True),
        (Toleration("k", "Equal", "other"), False),
        (Toleration("k", "Exists"), True),
        (Toleration("", "Exists"), True),
        (Toleration("", "Equal", "v"), False),
        (Toleration("k", "Exists", "", "NoExecute"), False),
    ],
)
def test_tolerations(toleration: Toleration, expected: bool) -> None:
    taint = Taint("k", "NoSchedule", "v")
    assert toleration.tolerates(taint) is expected
    assert untolerated((Taint("x", "PreferNoSchedule"), taint), (toleration,)) == (None if expected else taint)


def test_the_label_of_a_workload_fits_and_is_stable() -> None:
    key = "namespace/Deployment/" + "x" * 253
    label = names.workload_label(key)
    assert len(label) == 16
    assert names.workload_label("test/Deployment/llm") == "4425b467776c6a13"
    assert names.workload_label("a/Pod/b") != names.workload_label("a/Pod/c")
