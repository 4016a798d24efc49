"""Division of shards: even, sticky, the same topics' partitions together."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from gpufleet.bus.assignor import ShardAssignor, divide

NOTHING: tuple[int, frozenset[int]] = (0, frozenset())


def owned(round_: int, *shards: int) -> tuple[int, frozenset[int]]:
    return round_, frozenset(shards)


def test_even_shares_from_nothing() -> None:
    assert divide(5, {"a": NOTHING, "b": NOTHING}) == {"a": [0, 2, 4], "b": [1, 3]}
    assert divide(0, {"a": NOTHING}) == {"a": []}
    assert divide(2, {"a": NOTHING, "b": NOTHING, "c": NOTHING}) == {"a": [0], "b": [1], "c": []}
    assert divide(3, {}) == {}


def test_newcomer_takes_only_its_share() -> None:
    assert divide(4, {"a": owned(1, 0, 1, 2, 3), "b": NOTHING}) == {"a": [0, 1], "b": [2, 3]}
    assert divide(1, {"a": NOTHING, "z": owned(1, 0)}) == {"a": [], "z": [0]}


def test_shards_of_who_left_are_spread() -> None:
    assert divide(6, {"a": owned(1, 0, 1), "b": owned(1, 2, 3)}) == {"a": [0, 1, 4], "b": [2, 3, 5]}


def test_older_memory_does_not_count() -> None:
    """A member that was away believes that it owns what another one has got since."""
    assert divide(2, {"a": owned(1, 0, 1), "b": owned(2, 0, 1)}) == {"a": [1], "b": [0]}


@pytest.mark.parametrize("members", [1, 2, 3, 5, 16, 20])
def test_chain_of_joins_and_leaves_moves_as_little_as_possible(members: int) -> None:
    names = [f"m{number:02}" for number in range(members)]
    state = {names[0]: divide(16, {names[0]: NOTHING})[names[0]]}
    rounds = [*([names[: n + 1] for n in range(members)]), *([names[n:] for n in range(members)])]
    for round_, (before, after) in enumerate(pairwise(rounds), start=1):
        result = divide(16, {name: owned(round_, *state.get(name, ())) for name in after})
        assert sorted(shard for shards in result.values() for shard in shards) == list(range(16))
        sizes = sorted(map(len, result.values()))
        assert sizes[-1] - sizes[0] <= 1
        moved = sum(
            len(set(state[name]) - set(result.get(name, ()))) for name in before if name in after and name in state
        )
        gained = sum(len(result[name]) for name in after if name not in before)
        assert moved <= gained
        state = result


class Cluster:
    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return {"a": {0, 1, 2, 3}, "b": {0, 1, 2, 3}}.get(topic)


def test_topics_go_together_and_state_is_per_consumer() -> None:
    one, two = ShardAssignor(), ShardAssignor()
    cluster: Any = Cluster()
    first = one.assign(cluster, {"m1": one.metadata(["b", "a"])})
    one.on_assignment(first["m1"])
    assert first["m1"].assignment == [("a", [0, 1, 2, 3]), ("b", [0, 1, 2, 3])]
    second = two.assign(cluster, {"m1": one.metadata(["a", "b"]), "m0": two.metadata(["a", "b"])})
    assert second["m1"].assignment == [("a", [0, 1]), ("b", [0, 1])]
    assert second["m0"].assignment == [("a", [2, 3]), ("b", [2, 3])]


def test_senseless_user_data_owns_nothing() -> None:
    one = ShardAssignor()
    cluster: Any = Cluster()
    strange = [one.metadata(["a"]) for _ in range(4)]
    for metadata, data in zip(strange, [b"{", b"[]", b'{"shards": 3}', b'{"round": "x"}'], strict=True):
        metadata.user_data = data
    result = one.assign(cluster, {f"m{number}": metadata for number, metadata in enumerate(strange)})
    assert [entry.assignment for entry in result.values()] == [[("a", [number])] for number in range(4)]
