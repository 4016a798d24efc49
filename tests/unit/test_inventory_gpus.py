"""GPUs in sums, as inventory's metrics have them."""

from __future__ import annotations

from gpufleet.cli.reference import metrics
from gpufleet.model.cluster import ElasticStock, FreeBlock, NodeClass
from services.inventory.core.gpus import GpuCount, count

NVIDIA, AMD = "nvidia.com/gpu", "amd.com/gpu"


def _class(name: str, resource: str, per_node: int, nodes: int, free: list[tuple[int, int]], **more: int) -> NodeClass:
    return NodeClass(
        name,
        allocatable=(("cpu", 64000), (resource, per_node)),
        nodes=nodes,
        free=tuple(FreeBlock(n, (("cpu", 1000), (resource, amount))) for n, amount in free),
        elastic=ElasticStock(more["max_nodes"], more["stock"]) if more else None,
    )


def test_sums_by_resource_and_the_largest_free_block() -> None:
    found = count(
        [
            _class("a100", NVIDIA, 8, 4, [(1, 8), (2, 3)]),
            _class("a10", NVIDIA, 4, 1, [(1, 1)], max_nodes=5, stock=2),
            _class("mi300", AMD, 8, 2, []),
        ]
    )
    assert found == {
        AMD: GpuCount(total=16),
        NVIDIA: GpuCount(total=36, free=15, elastic=8, largest_block=8),
    }
    assert list(found) == [AMD, NVIDIA]


def test_a_pool_without_nodes_counts_as_elastic_only() -> None:
    pool = _class("a10", NVIDIA, 4, 0, [], max_nodes=3, stock=9)
    assert count([pool]) == {NVIDIA: GpuCount(elastic=12)}


def test_nodes_without_gpus_have_no_series() -> None:
    assert count([NodeClass("cpu", (("cpu", 64000),), 3, free=(FreeBlock(3, (("cpu", 64000),)),))]) == {}


def test_metrics_have_bounded_labels() -> None:
    labels = {family.name: family.labels for family in metrics.families("inventory")}
    assert labels["gpufleet_inventory_gpus"] == ("cluster", "resource", "state")
    assert labels["gpufleet_inventory_largest_free_block_gpus"] == ("cluster", "resource")
