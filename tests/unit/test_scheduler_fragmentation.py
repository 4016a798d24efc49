"""What a placement costs the mix of shapes asked for, and shared devices."""

from __future__ import annotations

import pytest

from gpufleet.model import devices
from gpufleet.model.cluster import ClusterSpec, FreeBlock, NodeClass, Scoring
from gpufleet.model.resources import labels, resources
from gpufleet.model.workload import Component, Division, PodShape, Workload
from services.scheduler.core import fragmentation
from services.scheduler.core.fleet import Fleet
from services.scheduler.core.fragmentation import Mix, Weighing
from services.scheduler.core.member import Member
from services.scheduler.core.pool import Pool
from services.scheduler.core.shapes import Catalog, Shape
from services.scheduler.core.units import Part
from services.scheduler.core.worth import POD, Worth
from tests.support.scheduling import GPU, NODE, amounts, inventory, node_class

CORE = "aliyun.com/gpu-core.percentage"
DEVICES = {"cpu": 32_000, "memory": 2**38, "pods": 110, GPU: 4, CORE: 400}


def shared(*free: tuple[int, ...]) -> NodeClass:
    blocks = tuple(
        FreeBlock(1, resources({**DEVICES, GPU: sum(d == 1000 for d in devices_), CORE: sum(devices_) // 10}), devices_)
        for devices_ in free
    )
    return NodeClass("shared", resources(DEVICES), len(free), free=blocks)


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


def _pool(catalog: Catalog, *free: dict[str, int], **labels_: str) -> Pool:
    whole = {"cpu": 32_000, "memory": 2**38, "pods": 110, GPU: 2}
    blocks = tuple(FreeBlock(1, resources({**whole, **block})) for block in free)
    return Pool(NodeClass("c", resources(whole), len(free), labels(labels_), free=blocks), catalog)


def _cost(mix: Mix, pool: Pool, shape: Shape, scoring: Scoring | None = None) -> tuple[int, int] | None:
    member = Member("c", 0)
    member.spec = ClusterSpec("c", scoring_strategy=scoring or Scoring())
    bid = mix.bid(member, pool, shape)
    return None if bid is None else (bid[1] // POD, bid[2] // POD)


def test_a_pod_costs_least_where_nothing_else_would_have_fitted() -> None:
    catalog = Catalog()
    mix = Mix(catalog)
    mix.replace(None, _submission("large", 1, amounts(gpu=1, cpu=16_000)))
    mix.replace(None, _submission("small", 1, amounts(gpu=1, cpu=4_000)))
    small = catalog.shape(PodShape(resources(amounts(gpu=1, cpu=4_000))))
    mix.shapes()
    assert _cost(mix, _pool(catalog, {"cpu": 8_000}), small) == (1, 2)  # only its own place; the block was worth 2
    assert _cost(mix, _pool(catalog, {"cpu": 20_000}), small) == (1, 3)
    assert _cost(mix, _pool(catalog, {"cpu": 16_000}), small) == (2, 3)  # a place of the large one, too
    assert _cost(mix, _pool(catalog, {"cpu": 2_000}), small) is None


def test_what_a_pod_costs_is_forgotten_when_room_is_taken_and_given_back() -> None:
    catalog = Catalog()
    mix = Mix(catalog)
    mix.replace(None, _submission("large", 1, amounts(gpu=1, cpu=16_000)))
    mix.replace(None, _submission("small", 1, amounts(gpu=1, cpu=4_000)))
    small = catalog.shape(PodShape(resources(amounts(gpu=1, cpu=4_000))))
    mix.shapes()
    pool = _pool(catalog, {"cpu": 20_000})
    empty = _cost(mix, pool, small)
    fitter = small.fitter(pool.layout)
    assert pool.take_whole(fitter, 1) == 1
    assert _cost(mix, pool, small) != empty
    assert pool.give_back(fitter, 1)
    assert _cost(mix, pool, small) == empty


def test_what_a_pod_costs_is_nothing_to_equal_requests_that_the_nodes_do_not_admit() -> None:
    catalog = Catalog()
    mix = Mix(catalog)
    mix.replace(None, _submission("large", 1, amounts(gpu=1, cpu=16_000)))
    small = resources(amounts(gpu=1, cpu=4_000))
    here, elsewhere = (catalog.shape(PodShape(small, node_selector=labels({"kind": kind}))) for kind in ("x", "y"))
    mix.shapes()
    pool = _pool(catalog, {"cpu": 20_000}, kind="x")
    assert _cost(mix, pool, here) is not None
    assert _cost(mix, pool, elsewhere) is None


@pytest.mark.parametrize(
    ("scoring", "cost"),
    [
        (Scoring(), (2, 2)),  # the emptier node, whose only GPU it takes
        (Scoring(packs=True), (2, 3)),  # the fuller one
        (Scoring(packs=True, weights=((GPU, 5),)), (2, 2)),  # fuller in GPUs
        (Scoring(packs=True, weights=(("example.com/none", 1),)), (2, 3)),  # all alike: the least free
    ],
)
def test_a_pod_costs_what_it_costs_on_the_node_that_the_cluster_takes(scoring: Scoring, cost: tuple[int, int]) -> None:
    catalog = Catalog()
    mix = Mix(catalog)
    mix.replace(None, _submission("large", 1, amounts(gpu=1, cpu=16_000)))
    mix.replace(None, _submission("small", 1, amounts(gpu=1, cpu=4_000)))
    small = catalog.shape(PodShape(resources(amounts(gpu=1, cpu=4_000))))
    mix.shapes()
    pool = _pool(catalog, {"cpu": 24_000, GPU: 1}, {"cpu": 16_000, GPU: 2})
    assert _cost(mix, pool, small, scoring) == cost


def test_room_that_nearly_suffices_is_worth_a_little_more() -> None:
    catalog = Catalog()
    large, small = (catalog.shape(PodShape(resources(amounts(gpu=1, cpu=cpu)))) for cpu in (16_000, 4_000))
    pool = _pool(catalog, {})
    worth = Worth([(large, 1), (small, 3)], pool)

    def of(**free: int) -> int:
        return worth.of(pool.layout.free(resources({"cpu": 0, "memory": 2**38, "pods": 110, GPU: 2, **free})))

    assert of(cpu=8_000) == 6 * POD + 500 + 3 * 2_000
    assert of(cpu=15_999) == 6 * POD + 999 + 3 * 2_000  # no more than two GPUs
    assert of(cpu=16_000) == 7 * POD + 1_000 + 3 * 2_000
    assert of(cpu=-5) == 0
    assert of(cpu=10**30) == 8 * POD + 8_000, "absurd amounts are large amounts"


def test_shares_of_devices_are_worth_what_fits_on_one_device() -> None:
    catalog = Catalog()
    pool = Pool(shared((1000, 600, 600, 0)), catalog)
    worth = Worth([(asking(catalog, share=60), 1), (asking(catalog, gpu=2), 10), (asking(catalog, gpu=1), 100)], pool)
    assert worth.of(next(iter(pool.running))) // POD == 3 + 0 + 100


SMALL, LARGE = amounts(gpu=1, cpu=4_000), amounts(gpu=1, cpu=16_000)


@pytest.mark.parametrize(
    ("prefers", "kinds", "expected"),
    [
        (False, ("x", "y"), "roomy"),  # the emptier node, where a large one loses its place
        (True, ("x", "y"), "narrow"),
        (True, ("x", "x"), "roomy"),  # the preference cannot be told
    ],
)
def test_a_single_pod_is_counted_where_it_will_go(prefers: bool, kinds: tuple[str, str], expected: str) -> None:
    fleet = Fleet()
    mix = Mix(fleet.catalog)
    mix.replace(None, _submission("large", 1, LARGE))
    mix.replace(None, _submission("small", 1, SMALL))
    free = ({"cpu": 16_000, GPU: 2}, {"cpu": 8_000, GPU: 2})
    classes = [
        node_class(name, free=[block], allocatable={**NODE, "cpu": 32_000}, node_labels={"kind": kind})
        for name, block, kind in zip(("roomy", "narrow"), free, kinds, strict=True)
    ]
    fleet.registered(ClusterSpec("c"))
    fleet.observed(inventory("c", *classes))
    member = fleet.member("c")
    part = Part("main", fleet.catalog.shape(PodShape(resources(SMALL))))
    ordered = fragmentation.order(Weighing(mix, prefers), member, part, single=True)
    assert ordered[0].name == expected
    assert fragmentation.order(Weighing(mix, prefers), member, part, single=False)[0].name == "narrow"
