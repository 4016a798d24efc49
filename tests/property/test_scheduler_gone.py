"""Pods that are taken away from nodes one after the other leave what they leave when they go together."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gpufleet.model.cluster import FreeBlock, NodeClass
from gpufleet.model.resources import resources
from gpufleet.model.workload import PodShape
from services.scheduler.core.blocks import room
from services.scheduler.core.gone import Emptied, Gone, together, vacate
from services.scheduler.core.pool import Pool
from services.scheduler.core.shapes import Catalog
from tests.support.scheduling import GPU, NODE

NUMBERS = range(1, 5)
CHANGES = st.lists(st.tuples(st.sampled_from(NUMBERS), st.sampled_from([1, 2]), st.integers(1, 2)), max_size=6)


def _pool(catalog: Catalog) -> Pool:
    """Four full nodes of 8 GPUs with a number each, of which the last is listed by no block, and one without."""
    blocks = (FreeBlock(2, resources({}), numbers=(1, 2)), FreeBlock(2, resources({**NODE, GPU: 1}), numbers=(3,)))
    return Pool(NodeClass("gpu", resources({**NODE, GPU: 8}), 5, free=blocks), catalog)


@settings(max_examples=60)
@given(CHANGES, st.integers(0, 6), st.integers(0, 6))
def test_node_by_node_is_as_at_once(changes: list[tuple[int, int, int]], back: int, parted: int) -> None:
    catalog = Catalog()
    pool, gone, emptied = _pool(catalog), Gone(), Emptied(_pool(catalog))
    shapes = {gpus: catalog.shape(PodShape(resources({"pods": 1, "cpu": 1000, GPU: gpus}))) for gpus in (1, 2)}
    kinds = [("gpu", shapes[gpus], pods, number) for number, gpus, pods in changes]
    for kind, times in [*((kind, 1) for kind in kinds), *((kind, -1) for kind in kinds[:back])]:
        gone.add(kind, times)
        emptied.take_away(kind[3], gone.at["gpu"].get(kind[3], {}))

    parts = (Gone(), Gone())
    for place, kind in enumerate(kinds[back:]):
        parts[place < parted].add(kind, 1)
    at_once = dict(pool.shown)
    vacate(at_once, pool, together(parts).at.get("gpu", {}))

    assert emptied.blocks == at_once
    assert room(emptied.blocks, shapes[1].fitter(pool.layout)) == room(at_once, shapes[1].fitter(pool.layout))


def test_a_node_of_which_there_are_fewer_than_numbers_gains_nothing() -> None:
    """An inventory that contradicts itself stops nobody."""
    catalog = Catalog()
    shape = catalog.shape(PodShape(resources({"pods": 1, GPU: 8})))
    blocks = (FreeBlock(1, resources({}), numbers=(1, 2)), FreeBlock(0, resources({GPU: 1}), numbers=(3,)))
    emptied = Emptied(Pool(NodeClass("gpu", resources({**NODE, GPU: 8}), 3, free=blocks), catalog))
    for number in NUMBERS:
        emptied.take_away(number, {shape: 1})
    assert room(emptied.blocks, shape.fitter(_pool(catalog).layout)) == 1
