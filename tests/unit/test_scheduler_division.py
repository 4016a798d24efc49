"""Webster's rounding, the pour over tiers, and the other ways to divide (specification 2.5, 6)."""

from __future__ import annotations

from itertools import pairwise

import pytest

from services.scheduler.core.divide import Mode, Option, aggregated, descending, pour, static, webster


@pytest.mark.parametrize(
    "seats, weights, expected",
    [
        (9, {"A": 1, "B": 2}, {"A": 3, "B": 6}),
        (9, {"A": 1, "B": 3}, {"A": 2, "B": 7}),
        (5, {"A": 4, "B": 2}, {"A": 3, "B": 2}),
        (7, {"A": 1, "B": 1, "C": 1}, {"A": 3, "B": 2, "C": 2}),
        (1, {"A": 0, "B": 5}, {"B": 1}),
        (12, {"A": 6, "B": 12, "C": 18}, {"A": 2, "B": 4, "C": 6}),
        (0, {"A": 1}, {"A": 0}),
        (5, {}, {}),
        (5, {"A": 0}, {}),
    ],
)
def test_webster_gives_the_documented_seats(seats: int, weights: dict[str, int], expected: dict[str, int]) -> None:
    assert webster(seats, weights) == expected


def test_ties_go_to_the_last_name_for_a_uid_with_an_odd_hash() -> None:
    weights = {"A": 1, "B": 1, "C": 1}
    assert webster(7, weights, last_first=True) == {"C": 3, "B": 2, "A": 2}
    assert not descending("")
    # Of the published hashes of FNV-1a, 32 bits.
    assert not descending("a")  # 0xe40c292c
    assert descending("b")  # 0xe70c2de5
    assert not descending("foobar")  # 0xbf9cf968


def test_webster_is_exact_where_doubles_are_not() -> None:
    # The two quotients differ by less than a double can tell apart.
    huge = 2**60
    assert webster(1, {"A": huge - 1, "B": huge}) == {"A": 0, "B": 1}
    assert webster(3, {"A": huge - 1, "B": huge}) == {"A": 1, "B": 2}


def options(*rows: tuple[str, int, int, int, int]) -> list[Option]:
    return [Option(name, tier, assigned, running, stock) for name, tier, assigned, running, stock in rows]


@pytest.mark.parametrize(
    "mode, replicas, rows, expected",
    [
        (Mode.STEADY, 3, [("a1", 0, 0, 4, 0), ("a2", 0, 0, 2, 0), ("b1", 1, 0, 10, 0)], {"a1": 2, "a2": 1, "b1": 0}),
        (Mode.STEADY, 6, [("a1", 0, 2, 2, 0), ("a2", 0, 1, 1, 0), ("b1", 1, 0, 10, 0)], {"a1": 4, "a2": 2, "b1": 0}),
        (Mode.STEADY, 9, [("a1", 0, 4, 0, 0), ("a2", 0, 2, 0, 0), ("b1", 1, 0, 10, 0)], {"a1": 4, "a2": 2, "b1": 3}),
        (Mode.STEADY, 7, [("a1", 0, 4, 0, 0), ("a2", 0, 2, 0, 0), ("b1", 1, 3, 7, 0)], {"a1": 4, "a2": 2, "b1": 1}),
        (Mode.STEADY, 5, [("a1", 0, 4, 0, 0), ("a2", 0, 2, 0, 0), ("b1", 1, 1, 9, 0)], {"a1": 3, "a2": 2, "b1": 0}),
        (Mode.FILL, 9, [("a1", 0, 4, 0, 0), ("a2", 0, 2, 0, 0)], {"a1": 4, "a2": 2}),
        # Steady pulls back into a higher tier, filling does not.
        (Mode.STEADY, 6, [("a", 0, 2, 2, 0), ("b", 1, 4, 0, 0)], {"a": 4, "b": 2}),
        (Mode.FILL, 7, [("a", 0, 2, 2, 0), ("b", 1, 4, 9, 0)], {"a": 3, "b": 4}),
        # The IDC has no stock, the cloud creates nodes.
        (Mode.STEADY, 4, [("idc", 0, 0, 2, 0), ("cloud", 1, 0, 0, 5)], {"idc": 2, "cloud": 2}),
        (Mode.STEADY, 8, [("idc", 0, 0, 2, 0), ("cloud", 1, 0, 0, 5)], {"idc": 2, "cloud": 5}),
        # Strict order: the stock of a tier before the free nodes of the next.
        (Mode.STEADY, 5, [("a", 0, 0, 1, 3), ("b", 1, 0, 9, 0)], {"a": 4, "b": 1}),
    ],
)
def test_pour(mode: Mode, replicas: int, rows: list[tuple[str, int, int, int, int]], expected: dict[str, int]) -> None:
    assert pour(options(*rows), replicas, mode) == expected


def test_existing_capacity_first_asks_for_stock_only_when_no_tier_has_running_room() -> None:
    rows = [("a", 0, 0, 1, 3), ("b", 1, 0, 2, 0)]
    assert pour(options(*rows), 3, Mode.STEADY, existing_first=True) == {"a": 1, "b": 2}
    assert pour(options(*rows), 5, Mode.STEADY, existing_first=True) == {"a": 3, "b": 2}
    assert pour(options(*rows), 5, Mode.FILL, existing_first=True) == {"a": 3, "b": 2}


def test_inside_a_tier_running_capacity_goes_before_stock() -> None:
    assert pour(options(("a", 0, 0, 1, 9), ("b", 0, 0, 2, 0)), 4, Mode.STEADY) == {"a": 2, "b": 2}


@pytest.mark.parametrize("weights, expected", [((1, 2), {"a": 3, "b": 6}), ((1, 3), {"a": 2, "b": 7})])
def test_static_weights_do_not_look_at_capacity(weights: tuple[int, int], expected: dict[str, int]) -> None:
    rows = [Option("a", 0, 0, 0, 0, weights[0]), Option("b", 0, 0, 0, 0, weights[1])]
    assert static(rows, 9) == expected


def test_static_weights_without_any_match_are_equal() -> None:
    assert static(options(("a", 0, 0, 0, 0), ("b", 0, 0, 0, 0)), 4) == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    "replicas, rows, expected",
    [
        (4, [("a", 0, 0, 3, 0), ("b", 0, 0, 6, 0), ("c", 0, 0, 2, 0)], {"a": 0, "b": 4, "c": 0}),
        (8, [("a", 0, 0, 3, 0), ("b", 0, 0, 6, 0), ("c", 0, 0, 2, 0)], {"a": 3, "b": 5, "c": 0}),
        # Who holds some goes first, even with less room.
        (4, [("a", 0, 1, 3, 0), ("b", 0, 0, 6, 0)], {"a": 4, "b": 0}),
        # Shrinking keeps the clusters with the most.
        (3, [("a", 0, 2, 3, 0), ("b", 0, 4, 6, 0)], {"a": 0, "b": 3}),
        # Stock only if running capacity does not suffice.
        (4, [("a", 0, 0, 3, 9), ("b", 0, 0, 2, 0)], {"a": 2, "b": 2}),
        (6, [("a", 0, 0, 3, 9), ("b", 0, 0, 2, 0)], {"a": 6, "b": 0}),
        (99, [("a", 0, 0, 3, 0), ("b", 0, 0, 2, 0)], {"a": 3, "b": 2}),
    ],
)
def test_aggregated(replicas: int, rows: list[tuple[str, int, int, int, int]], expected: dict[str, int]) -> None:
    assert aggregated(options(*rows), replicas, Mode.STEADY) == expected


NEW = [("m1", 0, 0, 6, 0), ("m2", 0, 0, 8, 0), ("m3", 0, 0, 10, 0)]
HELD = [("m1", 0, 2, 10, 0), ("m2", 0, 4, 10, 0), ("m3", 0, 6, 10, 0)]


@pytest.mark.parametrize(
    "replicas, rows, expected",
    [
        (12, NEW, {"m1": 3, "m2": 4, "m3": 5}),
        # Less shrinks everybody in proportion to what it has, more goes by room to what everybody has.
        (6, HELD, {"m1": 1, "m2": 2, "m3": 3}),
        (24, HELD, {"m1": 6, "m2": 8, "m3": 10}),
        (24, [("m1", 0, 2, 6, 0), ("m2", 0, 4, 6, 0), ("m3", 0, 6, 20, 0)], {"m1": 4, "m2": 6, "m3": 14}),
        # A third cluster, with six, is lost.
        (12, [("m1", 0, 2, 3, 0), ("m2", 0, 4, 3, 0)], {"m1": 5, "m2": 7}),
    ],
)
def test_dynamic_weights_as_upstream(
    replicas: int, rows: list[tuple[str, int, int, int, int]], expected: dict[str, int]
) -> None:
    assert pour(options(*rows), replicas, Mode.STEADY) == expected


@pytest.mark.parametrize(
    "replicas, rows, expected",
    [
        (12, NEW, {"m1": 0, "m2": 5, "m3": 7}),
        (6, [("m1", 0, 4, 10, 0), ("m2", 0, 8, 10, 0)], {"m1": 0, "m2": 6}),
        (8, [("m1", 0, 4, 10, 0), ("m2", 0, 8, 10, 0)], {"m1": 0, "m2": 8}),
        (24, [("m1", 0, 4, 6, 0), ("m2", 0, 8, 6, 0), ("m3", 0, 0, 20, 0)], {"m1": 10, "m2": 14, "m3": 0}),
        # Room enough only beyond those that have some.
        (24, [("m1", 0, 4, 6, 0), ("m2", 0, 8, 4, 0), ("m3", 0, 0, 20, 0)], {"m1": 6, "m2": 10, "m3": 8}),
    ],
)
def test_aggregated_as_upstream(
    replicas: int, rows: list[tuple[str, int, int, int, int]], expected: dict[str, int]
) -> None:
    assert aggregated(options(*rows), replicas, Mode.STEADY) == expected


def test_seats_come_one_by_one_in_the_order_of_an_election() -> None:
    votes = {"a": 100_000, "b": 80_000, "c": 30_000, "d": 20_000}
    rounds = [webster(seats, votes) for seats in range(9)]
    gained = [next(name for name in votes if after[name] > before[name]) for before, after in pairwise(rounds)]
    assert gained == ["a", "b", "a", "c", "b", "d", "a", "b"], "d and a are equal at the sixth; d has fewer"
