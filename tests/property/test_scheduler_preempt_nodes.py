"""Nobody is evicted in vain: when the victims' pods are gone, the preemptor's fit on the nodes of its cluster."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gpufleet.model.placement import Source
from gpufleet.model.policy import PriorityClass
from gpufleet.model.reasons import Code
from services.scheduler.core.events import PolicyChanged, WorkloadDeleted
from tests.support.examples import examples
from tests.support.nodes import Cluster, Fleet
from tests.support.quotas import quota, tree
from tests.support.scheduling import GPU, World, deployment, job, policy

RANKS = {"low": -10, "mid": 10, "high": 100}
SUBMISSION = st.tuples(
    st.sampled_from(sorted(RANKS)),
    st.sampled_from(["Deployment", "Deployment", "PyTorchJob", "two parts"]),
    st.integers(1, 9),
    st.sampled_from([1, 1, 2, 3, 4, 8]),
    st.sampled_from(["ns1", "ns2"]),
)
STEPS = st.lists(
    st.one_of(SUBMISSION, SUBMISSION, SUBMISSION, st.integers(0, 9), st.sampled_from(["start", "stop", "start"])),
    min_size=2,
    max_size=14,
)
PICKS = st.lists(st.integers(0, 3), min_size=3, max_size=8)


@settings(max_examples=examples(40), deadline=None)
@given(
    st.lists(st.sampled_from([2, 4, 8, 8]), min_size=1, max_size=4),
    st.lists(st.sampled_from([4, 8]), max_size=2),
    STEPS,
    PICKS,
    st.booleans(),
    st.booleans(),
    st.integers(0, 2),
)
def test_a_preemptor_has_its_place_when_its_victims_are_gone(
    one: list[int],
    two: list[int],
    steps: list[object],
    picks: list[int],
    quotas: bool,
    restart: bool,
    stock: int,
) -> None:
    nodes = {name: {f"{name}{i}": gpus for i, gpus in enumerate(sizes)} for name, sizes in (("a", one), ("b", two))}
    w = World()
    fleet = Fleet(w, {name: Cluster(name, found) for name, found in nodes.items()})
    for cluster in fleet.clusters.values() if stock else ():
        cluster.put_stock(8, stock)
    fleet.register()
    w.feed(
        PolicyChanged(policy(namespace="", ecs_provision=stock > 0)),
        *(PolicyChanged(PriorityClass(n, v)) for n, v in RANKS.items()),
    )
    if quotas:
        w.feed(PolicyChanged(tree(quota("one", 4, 20, "ns1"), quota("two", 8, 20, "ns2"), total=24)))
    keys: list[str] = []
    for number, step in enumerate(steps):
        if step == "start":
            fleet.start_pending(picks)
        elif step == "stop":
            fleet.stop_surplus()
        elif isinstance(step, int):
            if keys:
                w.feed(WorkloadDeleted(keys.pop(step % len(keys))))
                fleet.stop_surplus()
        else:
            assert isinstance(step, tuple)
            rank, kind, size, gpu, namespace = step
            if kind == "Deployment":
                made = deployment(f"w{number}", size, gpu=gpu, arrival=number)
            else:
                parts = {"Worker": (min(size, 4), gpu)} | ({"Master": (1, 1)} if kind == "two parts" else {})
                made = job(f"w{number}", parts, arrival=number)
            key = f"{namespace}/{made.kind}/{made.name}"
            keys.append(key)
            w.submit(replace(made, key=key, namespace=namespace, priority_class=rank))
            if restart:
                w.restart()
            _check(fleet, key, restart=restart)


def _check(fleet: Fleet, key: str, *, restart: bool) -> None:
    """After a restart the preemptor's reservation is a debt until its victims are gone."""
    w = fleet.world
    told = [reason for reason in w.placement(key).reasons if reason.code is Code.PREEMPTS]
    if not told:
        return
    for reason in told:
        assert restart or fleet.debt(reason.cluster) == 0, "at once"
    fleet.terminate_surplus()
    for reason in told:
        assert restart or fleet.debt(reason.cluster) == 0, "while its victims stop"
    fleet.stop_surplus()
    for reason in told:
        cluster = fleet.clusters[reason.cluster]
        assert fleet.debt(cluster.name) == 0, "when its victims are gone"
        share = w.placement(key).share(cluster.name)
        assert share is not None
        if any(slot.source is Source.ELASTIC for slot in share.slots):
            continue  # these wait for their nodes
        free = {node: cluster.free(node) for node in cluster.nodes}
        for workload, _, gpus in fleet.pending(cluster.name):
            if workload == key:
                node = min((n for n in free if free[n] >= gpus), key=lambda n: free[n], default=None)
                assert node is not None, f"no node has {gpus} {GPU} for {key}: {free}"
                free[node] -= gpus
