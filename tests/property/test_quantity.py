"""Quantities are exact, and never shrink a request or grow what is there."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpufleet.model import quantity
from gpufleet.model.resources import add, parse_resources, render_resources, resources, scale

NAMES = st.sampled_from(["cpu", "memory", "pods", "nvidia.com/gpu", "ephemeral-storage", "hugepages-2Mi"])
AMOUNTS = st.one_of(
    st.integers(0, quantity.LIMIT), st.integers(0, 64).map(lambda n: 2**n).filter(lambda n: n <= quantity.LIMIT)
)
FACTORS: dict[str, Fraction | int] = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "m": Fraction(1, 1000),
}


@given(amount=AMOUNTS, name=NAMES)
def test_what_is_rendered_is_parsed_back(amount: int, name: str) -> None:
    assert quantity.parse(quantity.render(amount, name), name) == amount


@given(whole=st.integers(0, 10**6), part=st.integers(0, 999), suffix=st.sampled_from(sorted(FACTORS)), name=NAMES)
def test_rounding_is_by_less_than_one(whole: int, part: int, suffix: str, name: str) -> None:
    text = f"{whole}.{part:03d}{suffix}"
    exact = (whole + Fraction(part, 1000)) * FACTORS[suffix] * (1000 if name == "cpu" else 1)
    up, down = quantity.parse(text, name), quantity.parse(text, name, round_up=False)
    assert down <= exact <= up
    assert up - down == (0 if exact.denominator == 1 else 1)


@given(st.text(max_size=80) | st.integers() | st.floats() | st.booleans())
@example("\U0001005e" * 40)
def test_anything_else_is_a_quantity_error(value: str | float) -> None:
    message, amount = "", -1
    try:
        amount = quantity.parse(value, "cpu")
    except quantity.QuantityError as error:
        message = str(error)
    assert len(message) < 200
    assert message or (0 <= amount <= quantity.LIMIT and not isinstance(value, bool))


@pytest.mark.parametrize("value", [2**70, -(2**70), "9" * 5000, "1e999", "-1", True, "8Gx", "", "Gi", "1.2.3", "0x10"])
def test_values_that_are_no_quantity(value: str | int) -> None:
    with pytest.raises(quantity.QuantityError):
        quantity.parse(value)


def test_a_number_too_long_to_be_written_out() -> None:
    for value in (10**5000, -(10**5000)):
        with pytest.raises(quantity.QuantityError):
            quantity.parse(value)


MAPS = st.dictionaries(NAMES, st.integers(0, 2**40))


@given(MAPS, MAPS)
def test_resources_are_canonical_and_add_up(one: dict[str, int], other: dict[str, int]) -> None:
    total = dict(add(resources(one), resources(other)))
    assert total == {n: one.get(n, 0) + other.get(n, 0) for n in {*one, *other} if one.get(n, 0) + other.get(n, 0)}
    assert add(resources(one), resources(other)) == add(resources(other), resources(one))
    assert scale(resources(one), 3) == add(resources(one), resources(one), resources(one))
    assert parse_resources(render_resources(resources(one))) == resources(one)
