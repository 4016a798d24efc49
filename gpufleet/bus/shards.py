"""Which partition of a by-cluster topic a cluster belongs to.

The shard is written down explicitly by every producer, so that no client's default partitioner can disagree.
"""

from __future__ import annotations

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995
_R = 24
_SEED = 0x9747B28C


def murmur2(data: bytes) -> int:
    """MurmurHash2 as in Kafka's Java client (`Utils.murmur2`), as an unsigned 32-bit integer."""
    length = len(data)
    h = (_SEED ^ length) & _MASK
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little")
        k = (k * _M) & _MASK
        k ^= k >> _R
        k = (k * _M) & _MASK
        h = (h * _M) & _MASK
        h ^= k
    rest = data[whole:]
    if rest:
        h ^= int.from_bytes(rest, "little")
        h = (h * _M) & _MASK
    h ^= h >> 13
    h = (h * _M) & _MASK
    h ^= h >> 15
    return h


def shard_of(cluster: str, partitions: int) -> int:
    """The partition of `cluster` among `partitions`: toPositive(murmur2(utf8)) mod n, as the Java client does for keys.

    Raises ValueError if `partitions` is below 1.
    """
    if partitions < 1:
        raise ValueError(f"a topic has at least one partition, not {partitions}")
    return (murmur2(cluster.encode()) & 0x7FFFFFFF) % partitions
