"""Which member of a group owns which shard.

Like Kafka's sticky assignor: even shares, and as many shards as possible stay where they are. Unlike it, partition
p of every topic of the group goes to the same member, and the state belongs to one consumer and not to the class, so
that several services can run in one process.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

_VERSION: Final = 0


def divide(shards: int, owned: Mapping[str, tuple[int, frozenset[int]]]) -> dict[str, list[int]]:
    """Give `shards` shards (0, 1, …) to the members of `owned`.

    `owned`: member → (round, shards it owned after that round). Where two claim one shard, the later round counts,
    then the lower member id. Every member gets floor or ceil of the average; a shard stays where the share allows it.
    """
    if not owned:
        return {}
    claims: dict[int, tuple[int, str]] = {}
    for member in sorted(owned, reverse=True):
        round_, claimed = owned[member]
        for shard in claimed:
            if shard < shards and (shard not in claims or round_ >= claims[shard][0]):
                claims[shard] = (round_, member)
    least, larger = divmod(shards, len(owned))
    result: dict[str, list[int]] = {member: [] for member in sorted(owned)}
    free: list[int] = []
    over: dict[str, list[int]] = {}
    for shard in range(shards):
        if shard not in claims:
            free.append(shard)
        elif len(result[claims[shard][1]]) < least:
            result[claims[shard][1]].append(shard)
        else:
            over.setdefault(claims[shard][1], []).append(shard)
    # Members that have more than the least keep one more while there are larger shares to give.
    for member in sorted(over):
        kept, rest = (over[member][:1], over[member][1:]) if larger else ([], over[member])
        larger -= len(kept)
        result[member].extend(kept)
        free.extend(rest)
    for shard in sorted(free):
        member = min(result, key=lambda m: (len(result[m]), m))
        result[member].append(shard)
    return {member: sorted(got) for member, got in result.items()}


class ShardAssignor(AbstractPartitionAssignor):  # type: ignore[misc]
    """One per consumer. The members send what they own as user data, the group's leader divides."""

    name = "gpufleet-shards"

    def __init__(self) -> None:
        self._round = 0
        self._owned: frozenset[int] = frozenset()

    # aiokafka declares these as class methods; an object with the same methods serves it as well.
    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        data = json.dumps({"round": self._round, "shards": sorted(self._owned)}).encode()
        return ConsumerProtocolMemberMetadata(_VERSION, sorted(topics), data)

    def assign(
        self, cluster: Any, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        topics = sorted({topic for member in members.values() for topic in member.subscription})
        partitions = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        owned = {member: _owned(metadata.user_data) for member, metadata in members.items()}
        shares = divide(max(partitions.values(), default=0), owned)
        round_ = max((r for r, _ in owned.values()), default=0) + 1
        return {
            member: ConsumerProtocolMemberAssignment(
                _VERSION,
                [
                    (topic, [shard for shard in shares[member] if shard < partitions[topic]])
                    for topic in sorted(members[member].subscription)
                ],
                json.dumps({"round": round_}).encode(),
            )
            for member in members
        }

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        self._round = _owned(assignment.user_data)[0]
        self._owned = frozenset(tp.partition for tp in assignment.partitions())


def _owned(data: bytes | None) -> tuple[int, frozenset[int]]:
    """Round and shards from user data; a member whose data makes no sense owns nothing."""
    try:
        body = json.loads(data or b"{}")
        return int(body.get("round", 0)), frozenset(int(shard) for shard in body.get("shards", ()))
    except (ValueError, TypeError, AttributeError):
        return 0, frozenset()
