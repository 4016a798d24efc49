"""What holds in a simulated cluster whatever is done to it."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gpufleet.model.resources import parse_resources
from services.inventory.core.objects import pod_from
from sim.model.autoscaler import Pool, pools_writes, read_pools
from sim.model.cluster import Behaviour, simulated
from sim.model.drive import Drive
from sim.model.faults import fail_node
from sim.model.names import NODE_POOL, STOCK
from sim.model.objects import annotations_of, deleting, finished, node_of, ready
from tests.support.simulation import Simulation, deployment, node, pod_template

NAMES = ("a", "b", "c")
GPUS = (0, 1, 4, 8)
Step = tuple[str, Any]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.tuples(st.sampled_from(NAMES), st.integers(0, 9), st.sampled_from(GPUS))),
        st.tuples(st.just("scale"), st.tuples(st.sampled_from(NAMES), st.integers(0, 12))),
        st.tuples(st.just("update"), st.tuples(st.sampled_from(NAMES), st.sampled_from(GPUS))),
        st.tuples(st.just("delete"), st.sampled_from(NAMES)),
        st.tuples(st.just("kill"), st.integers(0, 30)),
        st.tuples(st.just("fail"), st.tuples(st.integers(0, 2), st.booleans())),
        st.tuples(st.just("lose"), st.integers(0, 2)),
        st.tuples(st.just("wait"), st.sampled_from((1, 7, 31, 120))),
        st.tuples(st.just("stock"), st.integers(0, 3)),
    ),
    max_size=14,
)


def start() -> Simulation:
    behaviour = Behaviour(ready_after=2, stop_seconds=3, idle_seconds=60, grace_seconds=5, eviction_seconds=10)
    sim = Simulation(*(node(f"n-{i}", gpu="8", cpu="16", pods="12") for i in range(3)), behaviour=behaviour, crds=False)
    sim.do(*pools_writes(sim.drive.view, [pool(2)]))
    return sim


def pool(stock: int) -> Pool:
    shape = {"cpu": "16", "memory": "256Gi", "pods": "12", "nvidia.com/gpu": "8"}
    return Pool("extra", {}, [], shape, 3, stock, 30.0, "type", "zone")


def play(sim: Simulation, what: str, how: Any) -> None:
    view = sim.drive.view
    if what == "create":
        name, replicas, gpus = how
        if view.get("apps/v1", "Deployment", "default", name) is None:
            sim.create(deployment(name, replicas, pod_template(gpu=gpus)))
    elif what in ("scale", "update", "delete"):
        name = how if what == "delete" else how[0]
        if view.get("apps/v1", "Deployment", "default", name) is None:
            return
        if what == "scale":
            sim.patch("apps/v1", "Deployment", name, {"spec": {"replicas": how[1]}})
        elif what == "update":
            containers = pod_template(gpu=how[1])["spec"]["containers"]
            sim.patch("apps/v1", "Deployment", name, {"spec": {"template": {"spec": {"containers": containers}}}})
        else:
            sim.delete("apps/v1", "Deployment", name)
    elif what == "kill":
        pods = sim.pods()
        if pods:
            sim.delete("v1", "Pod", pods[how % len(pods)]["metadata"]["name"])
    elif what == "fail":
        if view.get("v1", "Node", "", f"n-{how[0]}") is not None:
            sim.do(*fail_node(f"n-{how[0]}", down=how[1]))
    elif what == "lose":
        sim.delete("v1", "Node", f"n-{how}", namespace="")
    elif what == "wait":
        sim.wait(how)
    else:
        sim.do(*pools_writes(view, [pool(how)]))


def check_room(sim: Simulation) -> None:
    """No node has more bound to it than it has, and created nodes never exceed the pool."""
    used: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for entry in sim.drive.view.list("v1", "Pod"):
        if node_of(entry) and not finished(entry):
            for name, amount in pod_from(entry).requests:
                used[node_of(entry)][name] += amount
    nodes = sim.drive.view.list("v1", "Node")
    for entry in nodes:
        allocatable = dict(parse_resources(entry["status"]["allocatable"]))
        for name, amount in used[entry["metadata"]["name"]].items():
            assert amount <= allocatable.get(name, 0), f"{entry['metadata']['name']} has too much {name}"
    created = sum(annotations_of(entry).get(NODE_POOL) == "extra" for entry in nodes)
    shown = json.loads(sim.get("v1", "ConfigMap", STOCK, "kube-system")["data"]["extra"])
    coming = len(shown["provisioning"])
    limits = read_pools(sim.drive.view)[0]
    assert created + coming <= 3
    assert shown["stock"] == max(0, limits.stock - created - coming)
    assert shown["maxNodes"] == limits.max_nodes - created - coming


def check_settled(sim: Simulation) -> None:
    """Each Deployment has as many pods as it asks for, and says truly how many are ready."""
    for entry in sim.drive.view.list("apps/v1", "Deployment"):
        labels = entry["spec"]["selector"]["matchLabels"]
        pods = [p for p in sim.pods(**labels) if not deleting(p) and not finished(p)]
        wanted = entry["spec"]["replicas"]
        status = entry.get("status") or {}
        assert len(pods) >= wanted
        assert status.get("readyReplicas", 0) == sum(map(ready, pods))
        if status.get("updatedReplicas", 0) == wanted == status.get("replicas", 0):
            assert len(pods) == wanted
    names = {entry["metadata"]["name"] for entry in sim.drive.view.list("v1", "Node")}
    assert all(node_of(entry) in names for entry in sim.pods() if node_of(entry))


def run(story: list[Step]) -> Simulation:
    sim = start()
    for what, how in story:
        play(sim, what, how)
        check_room(sim)
        assert not sim.drive.busy
    sim.wait(2000)
    check_room(sim)
    check_settled(sim)
    assert sim.refused == []
    return sim


def dump(sim: Simulation) -> str:
    """All objects but events."""
    kinds = [(r.api_version, r.kind) for r in sim.store.registry if r.kind != "Event"]
    return json.dumps({f"{k}": list(sim.drive.view.list(*k)) for k in kinds}, sort_keys=True)


def essence(sim: Simulation) -> dict[str, Any]:
    """Objects without what words may say about them, and without the traces of a write."""
    kinds = [(r.api_version, r.kind) for r in sim.store.registry if r.kind != "Event"]
    found: dict[str, Any] = {}
    for kind in kinds:
        for entry in sim.drive.view.list(*kind):
            status = entry.get("status")
            if isinstance(status, dict) and "conditions" in status:
                stripped = [{k: v for k, v in c.items() if k != "message"} for c in status["conditions"]]
                status = {**status, "conditions": stripped}
            metadata = {k: v for k, v in entry["metadata"].items() if k != "resourceVersion"}
            found[f"{kind} {metadata.get('namespace')}/{metadata['name']}"] = {
                **entry,
                "metadata": metadata,
                "status": status,
            }
    return found


@settings(max_examples=60, deadline=None)
@given(steps)
def test_a_cluster_keeps_its_promises(story: list[Step]) -> None:
    run(story)


@settings(max_examples=15, deadline=None)
@given(steps)
def test_the_same_story_gives_the_same_objects(story: list[Step]) -> None:
    assert dump(run(story)) == dump(run(story))


@settings(max_examples=30, deadline=None)
@given(steps)
def test_fresh_controllers_go_on_where_others_stopped(story: list[Step]) -> None:
    sim = run(story)
    before = essence(sim)
    sim.drive.close()
    fresh = Drive(sim.store, simulated(Behaviour(idle_seconds=1e9)))
    fresh.settle(sim.now)
    assert essence(sim) == before, "a settled cluster needs nothing"
