"""GPUs of a cluster in sums, for metrics. Decisions are made on free blocks, never on these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gpufleet.model.cluster import NodeClass
from gpufleet.model.resources import Resources


@dataclass(frozen=True, slots=True)
class GpuCount:
    """GPUs of one resource: in all, free on usable nodes, on nodes that could be created, most free on one node."""

    total: int = 0
    free: int = 0
    elastic: int = 0
    largest_block: int = 0


def count(classes: Iterable[NodeClass]) -> Mapping[str, GpuCount]:
    """Returns the GPUs of node classes by resource (``nvidia.com/gpu``…), in order of its name."""
    found: dict[str, GpuCount] = {}
    for node_class in classes:
        for name, amount in _gpus(node_class.allocatable):
            blocks = [(block.nodes, dict(block.free).get(name, 0)) for block in node_class.free]
            before = found.get(name, GpuCount())
            found[name] = GpuCount(
                total=before.total + amount * node_class.nodes,
                free=before.free + sum(nodes * free for nodes, free in blocks),
                elastic=before.elastic + (amount * node_class.elastic.nodes if node_class.elastic else 0),
                largest_block=max(before.largest_block, max((free for _, free in blocks), default=0)),
            )
    return dict(sorted(found.items()))


def _gpus(amounts: Resources) -> list[tuple[str, int]]:
    return [(name, amount) for name, amount in amounts if name.endswith("/gpu")]
