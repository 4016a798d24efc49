"""Units of a ResourcePolicy: bounds over all workloads, the order of units, and objects that add up."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gpufleet.model.policy import ResourcePolicy, ResourceUnit, UnitResource
from gpufleet.model.resources import labels
from gpufleet.model.selectors import LabelSelector
from gpufleet.model.workload import Workload
from services.dispatcher.core.render import render
from services.scheduler.core.events import PolicyChanged
from services.scheduler.core.settings import Settings
from tests.support.scheduling import GPU, World, deployment, gpus_free, policy

APP = {"app": "x"}
NAMES = ("one", "two", "three")


def submitted(name: str, replicas: int) -> Workload:
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "test"},
        "spec": {"selector": {"matchLabels": APP}, "template": {"metadata": {"labels": APP}, "spec": {}}},
    }
    return deployment(name, replicas, pod_labels=APP, manifest=manifest, arrival=NAMES.index(name))


@st.composite
def policies(draw: st.DrawFn) -> ResourcePolicy:
    units: list[ResourceUnit] = []
    for pool in draw(st.lists(st.sampled_from(["a", "b", ""]), min_size=1, max_size=3)):
        where = labels({"pool": pool} if pool else {})
        most = draw(st.none() | st.integers(0, 4))
        amounts = draw(st.sampled_from([(), ((GPU, 2),)]))
        # A mark of its own keeps units of the same nodes apart.
        marks = labels({"unit": str(len(units))})
        units.append(ResourceUnit(UnitResource.ECS, where, most, amounts, marks))
    when = draw(st.sampled_from(["LackResourceOrExceedMax", "ExceedMax"]))
    return ResourcePolicy("rp", "test", tuple(units), LabelSelector(labels(APP)), when, digest="1")


@given(
    policies(),
    st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 7)), min_size=1, max_size=6),
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
)
def test_bounds_hold_order_is_kept_and_objects_add_up(
    rules: ResourcePolicy, asked: list[tuple[str, int]], free: tuple[int, int]
) -> None:
    world = World(settings=Settings(stale_after=10**9))
    pools = [
        gpus_free(*([1] * count or [0]), name=name, node_labels={"pool": name})
        for name, count in zip("ab", free, strict=True)
    ]
    world.clusters(c=pools)
    world.feed(PolicyChanged(rules), PolicyChanged(policy()))
    wanted: dict[str, int] = {}
    for name, replicas in asked:
        wanted[name] = replicas
        world.submit(submitted(name, replicas))
    used: Counter[int] = Counter()
    taken: Counter[str] = Counter()
    for name, replicas in wanted.items():
        placement = world.placement(f"test/Deployment/{name}")
        assert placement.placed <= replicas
        for share in placement.shares:
            for slot in share.slots:
                assert slot.unit is not None and slot.node_class
                unit = rules.units[slot.unit]
                assert dict(unit.node_selector).get("pool") in (None, slot.node_class)
                used[slot.unit] += slot.count
                taken[slot.node_class] += slot.count
            assert sum(slot.count for slot in share.slots) == share.replicas
            order = [slot.unit for slot in share.slots]
            assert order == sorted(order, key=lambda unit: unit or 0)
            assignment = world.assignment(placement.workload, "c")
            objects = [replace(assignment, variants=())] + [
                replace(assignment, components=v.components, patches=v.patches, variants=())
                for v in assignment.variants
            ]
            assert sum(render(order)["spec"]["replicas"] for order in objects) == share.replicas
    for index, unit in enumerate(rules.units):
        assert unit.max is None or used[index] <= unit.max
        assert not unit.max_resources or used[index] <= 2
    for pool, count in zip("ab", free, strict=True):
        assert taken[pool] <= count
