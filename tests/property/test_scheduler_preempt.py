"""Whatever comes and goes: quotas and clusters are never exceeded, gangs are whole, and nobody important yields."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gpufleet.model.policy import PriorityClass
from gpufleet.model.reasons import Code
from services.scheduler.core.events import PolicyChanged, WorkloadDeleted
from tests.support.quotas import GPU, quota, tree
from tests.support.scheduling import World, deployment, gpus_free, job, policy

RANKS = {"low": -10, "mid": 10, "high": 100, "polite": 200}
CAPACITY = {"a": 8, "b": 6}

submission = st.tuples(
    st.integers(0, 5), st.sampled_from(sorted(RANKS)), st.booleans(), st.integers(1, 6), st.sampled_from(["ns1", "ns2"])
)
step = st.one_of(submission, st.integers(0, 5))


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(step, max_size=14), quotas=st.booleans())
def test_limits_hold_and_victims_rank_lower(steps: list[object], quotas: bool) -> None:
    w = World()
    w.clusters(a=gpus_free(4, 4), b=gpus_free(6))
    w.feed(
        PolicyChanged(policy(namespace="")),
        *(PolicyChanged(PriorityClass(n, v, preempts=n != "polite")) for n, v in RANKS.items()),
    )
    if quotas:
        w.feed(PolicyChanged(tree(quota("one", 4, 10, "ns1"), quota("two", 8, 10, "ns2"), total=12)))
    ranks: dict[str, list[int]] = {}
    keys: dict[int, str] = {}
    for number, what in enumerate(steps):
        if isinstance(what, int):
            if what in keys:
                key = keys.pop(what)
                w.feed(WorkloadDeleted(key))
                for (workload, cluster), (_, known) in list(w.assignments.items()):
                    if workload == key and known is not None:
                        w.gone(key, cluster)
            continue
        assert isinstance(what, tuple)
        name, rank, is_job, size, namespace = what
        if name in keys:
            continue
        made = (
            job(f"w{name}", {"Worker": (size, 1)}, arrival=number, digest=str(number))
            if is_job
            else deployment(f"w{name}", size, arrival=number, digest=str(number))
        )
        key = f"{namespace}/{made.kind}/{made.name}"
        keys[name] = key
        ranks.setdefault(key, []).append(RANKS[rank])
        w.submit(replace(made, key=key, namespace=namespace, priority_class=rank))
        _check(w, ranks, quotas=quotas)
    w.refresh()
    _check(w, ranks, quotas=quotas)


def _check(w: World, ranks: dict[str, list[int]], *, quotas: bool) -> None:
    """`ranks`: by workload, of each submission under this name, the last one's last."""
    placements = {k: p for k, (_, p) in w.placements.items() if p is not None}
    for cluster, capacity in CAPACITY.items():
        assert sum(s.replicas for p in placements.values() for s in p.shares if s.cluster == cluster) <= capacity
    for key, placement in placements.items():
        if "/PyTorchJob/" in key:
            assert placement.placed in (0, placement.replicas)
            assert len(placement.shares) <= 1
        for reason in placement.reasons:
            if reason.code is Code.PREEMPTED and "of higher priority" in reason.message:
                by = next(k for k in ranks if f" {k} " in reason.message)
                # Who took the place may have been deleted since, and submitted again with another rank.
                assert any(RANKS["polite"] > rank > ranks[key][-1] for rank in ranks[by])
            elif reason.code is Code.PREEMPTED:
                assert quotas
    if quotas:
        for node in (w.state.quotas.root, w.state.quotas.leaf("one"), w.state.quotas.leaf("two")):
            assert node is not None
            found = sum(
                p.placed for k, p in placements.items() if node.parent is None or k[:3] in node.quota.namespaces
            )
            assert node.used.get(GPU, 0) == found
            assert found <= node.max[GPU]
