"""What a placement costs the mix of shapes asked for, and shared devices."""

from __future__ import annotations

import pytest

from gpufleet.model import devices
from gpufleet.model.cluster import FreeBlock, NodeClass
from gpufleet.model.resources import resources
from gpufleet.model.workload import Component, Division, PodShape, Workload
from services.scheduler.core.capacity import Fleet
from services.scheduler.core.fragmentation import Mix
from services.scheduler.core.pool import Pool
from services.scheduler.core.shapes import Catalog, Shape
from tests.support.scheduling import GPU, amounts

CORE = "aliyun.com/gpu-core.percentage"
NODE = {"cpu": 32_000, "memory": 2**38, "pods": 110, GPU: 4, CORE: 400}


def shared(*free: tuple[int, ...]) -> NodeClass:
    blocks = tuple(
        FreeBlock(1, resources({**NODE, GPU: sum(d == 1000 for d in devices_), CORE: sum(devices_) // 10}), devices_)
        for devices_ in free
    )
    return NodeClass("shared", resources(NODE), len(free), free=blocks)


def asking(catalog: Catalog, **requests: int) -> Shape:
    names = {"gpu": GPU, "share": CORE}
    return catalog.shape(PodShape(resources({"pods": 1, **{names.get(k, k): v for k, v in requests.items()}})))


@pytest.mark.parametrize(
    ("requests", "free", "fits"),
    [
        ({"share": 47}, (1000, 1000, 1000, 1000), 8),
        ({"share": 60}, (1000, 500, 500, 500), 1),  # enough in all, but on no one device
        ({"gpu": 1}, (1000, 999, 1000, 0), 2),
        ({"gpu": 2}, (1000, 1000, 1000, 0), 1),
        ({"share": 200}, (1000, 1000, 1000, 500), 1),  # two whole devices
        ({"share": 10, "cpu": 16_000}, (1000, 1000, 1000, 1000), 2),
        ({"cpu": 16_000}, (0, 0, 0, 0), 2),
    ],
)
def test_what_fits_shared_devices(requests: dict[str, int], free: tuple[int, ...], fits: int) -> None:
    catalog = Catalog()
    assert Pool(shared(free), catalog).counts(asking(catalog, **requests)) == (fits, 0)


def test_shares_are_packed_on_the_fullest_device_that_has_room() -> None:
    catalog = Catalog()
    pool = Pool(shared((1000, 1000, 500, 0)), catalog)
    assert pool.take_running(asking(catalog, share=30), 2) == 2
    assert [free[pool.layout.resources :] for free in pool.running] == [(0, 200, 700, 1000)]
    left = dict(zip(pool.layout.names, next(iter(pool.running)), strict=True))
    assert (left[GPU], left[CORE]) == (1, 190)
    assert pool.counts(asking(catalog, gpu=1)) == (1, 0)


def test_taking_one_pod_leaves_room_for_one_less() -> None:
    catalog = Catalog()
    pool = Pool(shared((1000, 700, 310, 90), (1000, 1000, 1000, 1000)), catalog)
    shape = asking(catalog, share=31)
    room = pool.counts(shape)[0]
    for left in range(room - 1, -1, -1):
        assert pool.take_running(shape, 1) == 1
        assert pool.counts(shape)[0] == left


def test_a_memory_share_is_a_share_of_its_device() -> None:
    told = devices.Devices(2, (("aliyun.com/gpu-mem", 30),))
    assert devices.share((("aliyun.com/gpu-mem", 5),), told) == devices.Share(1, 334, 5, 15)


def _submission(name: str, replicas: int, requests: dict[str, int]) -> Workload:
    shape = PodShape(resources(requests))
    return Workload(
        key=f"ns/Job/{name}",
        namespace="ns",
        kind="Job",
        name=name,
        api_version="batch/v1",
        components=(Component("main", replicas, shape),),
        division=Division.WHOLE,
        job=True,
    )


def test_the_mix_follows_the_submissions() -> None:
    mix = Mix(Fleet().catalog)
    one, two = _submission("a", 3, amounts(gpu=1)), _submission("b", 1, amounts(gpu=8))
    assert mix.one
    mix.replace(None, one)
    assert mix.one
    mix.replace(None, two)
    assert [(shape.gpus, weight) for shape, weight in mix.shapes()] == [(1, 3), (8, 1)]
    mix.replace(one, None)
    assert [(shape.gpus, weight) for shape, weight in mix.shapes()] == [(8, 1)]
    mix.replace(None, _submission("c", 5, amounts(cpu=1000)))
    assert mix.one, "pods without GPUs are not weighed"


def test_a_pod_costs_least_where_nothing_else_would_have_fitted() -> None:
    catalog = Catalog()
    mix = Mix(catalog)
    mix.replace(None, _submission("large", 1, amounts(gpu=1, cpu=16_000)))
    mix.replace(None, _submission("small", 1, amounts(gpu=1, cpu=4_000)))
    small = catalog.shape(PodShape(resources(amounts(gpu=1, cpu=4_000))))
    mix.shapes()

    def pool(cpu: int) -> Pool:
        free = resources({"cpu": cpu, "memory": 2**38, "pods": 110, GPU: 2})
        return Pool(NodeClass(f"c{cpu}", free, 1, free=(FreeBlock(1, free),)), catalog)

    assert mix.cost(pool(8_000), small) == (1, 2)  # only its own place is lost; the block was worth 2
    assert mix.cost(pool(20_000), small) == (1, 3)
    assert mix.cost(pool(16_000), small) == (2, 3)  # a place of the large one, too


def test_what_a_pod_costs_is_forgotten_when_room_is_taken_and_given_back() -> None:
    catalog = Catalog()
    mix = Mix(catalog)
    mix.replace(None, _submission("large", 1, amounts(gpu=1, cpu=16_000)))
    mix.replace(None, _submission("small", 1, amounts(gpu=1, cpu=4_000)))
    small = catalog.shape(PodShape(resources(amounts(gpu=1, cpu=4_000))))
    mix.shapes()
    free = resources({"cpu": 20_000, "memory": 2**38, "pods": 110, GPU: 2})
    pool = Pool(NodeClass("c", free, 1, free=(FreeBlock(1, free),)), catalog)
    empty = mix.cost(pool, small)
    fitter = small.fitter(pool.layout)
    assert pool.take_whole(fitter, 1) == 1
    pool.book_whole(1)
    assert mix.cost(pool, small) != empty
    assert pool.give_back(fitter, 1)
    assert mix.cost(pool, small) == empty
