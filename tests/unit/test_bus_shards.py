"""The shard of a cluster: the number that Kafka's Java client computes for a key."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import DefaultPartitioner

from gpufleet.bus.shards import murmur2, shard_of


@pytest.mark.parametrize(
    ("data", "signed"),
    [  # org.apache.kafka.common.utils.UtilsTest.testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_of_the_java_client(data: bytes, signed: int) -> None:
    assert murmur2(data) == signed & 0xFFFFFFFF


@pytest.mark.parametrize("cluster", ["", "c", "c-idc", "c-ack-hangzhou", "cluster-ä", "x" * 253])
def test_shard_is_that_of_the_default_partitioner(cluster: str) -> None:
    assert shard_of(cluster, 16) == DefaultPartitioner()(cluster.encode(), list(range(16)), list(range(16)))


def test_shards_are_spread_and_never_change() -> None:
    shards = [shard_of(f"c{number}", 16) for number in range(1000)]
    assert set(shards) == set(range(16))
    assert max(map(shards.count, range(16))) < 100
    assert [shard_of(name, 16) for name in ("c-idc", "c-ack-1", "c-ack-2")] == [12, 10, 8]
    assert shard_of("anything", 1) == 0


def test_topic_without_partitions() -> None:
    with pytest.raises(ValueError, match="at least one partition"):
        shard_of("c", 0)
