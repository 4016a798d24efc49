"""The incremental cache says what a count from scratch says, whatever the order of changes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gpufleet.model.cluster import ComponentPods
from services.inventory.core.cache import ClusterCache
from services.inventory.core.objects import CLASS_LABEL, Node, Pod
from tests.support.examples import examples

# The second class shares its GPUs.
SHAPES = {
    "a": (("gpu", 4), ("pods", 3)),
    "b": (("aliyun.com/gpu-count", 2), ("aliyun.com/gpu-mem", 20), ("gpu", 4), ("pods", 3)),
}
NODES = st.builds(
    lambda name, shape, usable: Node(name, ((CLASS_LABEL, shape),), (), SHAPES[shape], usable),
    st.sampled_from(["n1", "n2", "n3"]),
    st.sampled_from(sorted(SHAPES)),
    st.booleans(),
)
PODS = st.builds(
    Pod,
    uid=st.sampled_from(["p1", "p2", "p3", "p4"]),
    namespace=st.just("t"),
    name=st.just("p"),
    node=st.sampled_from(["", "n1", "n2", "n3"]),
    requests=st.sampled_from(
        [(("gpu", 1), ("pods", 1)), (("gpu", 2), ("pods", 1)), (("aliyun.com/gpu-mem", 3), ("gpu", 1), ("pods", 1))]
    ),
    allocation=st.sampled_from([(), (), ((0, "aliyun.com/gpu-mem", 3),), ((1, "aliyun.com/gpu-mem", 3),)]),
    phase=st.sampled_from(["Pending", "Running", "Succeeded"]),
    created=st.just(0.0),
    workload=st.sampled_from(["", "t/Deployment/a", "t/Deployment/b"]),
    component=st.just("main"),
)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("put_node"), NODES),
        st.tuples(st.just("put_pod"), PODS),
        st.tuples(st.just("remove_node"), st.sampled_from(["n1", "n2", "n3"])),
        st.tuples(st.just("remove_pod"), st.sampled_from(["p1", "p2", "p3", "p4"])),
    ),
    max_size=25,
)


def blocks(cache: ClusterCache) -> dict[str, tuple[int, Counter[object]]]:
    found: dict[str, tuple[int, Counter[object]]] = {}
    for name in cache.class_names():
        known = cache.node_class(name)
        assert known is not None
        found[name] = (known.nodes, Counter({(b.free, b.gpu_free): b.nodes for b in known.free}))
    return found


def nowhere(cache: ClusterCache, workload: str) -> list[tuple[str, ComponentPods]]:
    """What pods do, but not where."""
    return [(name, replace(pods, nodes=())) for name, pods in cache.pods_of(workload, 0.0)]


def contents(cache: ClusterCache) -> Counter[object]:
    """What is left of nodes with pods of workloads, and which pods these are; numbers are given in order of sight."""
    pods: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for key in cache.workload_keys():
        for _, found in cache.pods_of(key, 0.0):
            for here in found.nodes:
                pods.setdefault((here.node_class, here.number), []).append((key, here.pods))
    left: dict[tuple[str, int], object] = {}
    for name in cache.class_names():
        known = cache.node_class(name)
        assert known is not None
        for block in known.free:
            assert len(block.numbers) <= block.nodes
            left.update({(name, number): (block.free, block.gpu_free) for number in block.numbers})
    assert left.keys() <= pods.keys()
    return Counter((name, left.get((name, number)), tuple(here)) for (name, number), here in pods.items())


@settings(max_examples=examples(300), deadline=None)
@given(CHANGES)
def test_the_cache_equals_a_count_from_scratch(changes: list[tuple[str, object]]) -> None:
    cache = ClusterCache()
    nodes: dict[str, Node] = {}
    pods: dict[str, Pod] = {}
    for method, value in changes:
        getattr(cache, method)(value)
        if isinstance(value, Node):
            nodes[value.name] = value
        elif isinstance(value, Pod):
            pods[value.uid] = value
        else:
            (nodes if method == "remove_node" else pods).pop(str(value), None)
    fresh = ClusterCache()
    fresh.replace_nodes(nodes.values())
    fresh.replace_pods(pods.values())
    assert blocks(cache) == blocks(fresh)
    assert cache.workload_keys() == fresh.workload_keys()
    for key in fresh.workload_keys():
        assert nowhere(cache, key) == nowhere(fresh, key)
    assert contents(cache) == contents(fresh)
