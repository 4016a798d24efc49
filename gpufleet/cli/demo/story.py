"""The story: what ACK One's two articles promise, step by step, checked in the clusters themselves.

It runs unchanged on simulated clusters and on real control planes: everything is done by producing to topics and by
the Kubernetes API.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from itertools import pairwise
from typing import Any

from gpufleet.cli.demo.stage import Stage, StepFailed, is_ready
from gpufleet.model.placement import Placement, Source
from gpufleet.model.reasons import Verdict

VLLM = "test/Deployment/vllm"
LARGE = "test/PyTorchJob/train-large"
TRAIN = "test/PyTorchJob/train"
NGINX = "default/Deployment/nginx-gpu-deployment-resourcepolicy"
IDC, HANGZHOU, BEIJING, REGISTERED = "c-idc", "c-ack-hangzhou", "c-ack-beijing", "c-registered"
CLUSTERS = (IDC, HANGZHOU, BEIJING, REGISTERED)


def _shares(wanted: Mapping[str, int]) -> Callable[[Placement], str | None]:
    def check(placement: Placement) -> str | None:
        found = {s.cluster: s.replicas for s in placement.shares}
        return None if found == dict(wanted) else f"{placement.verdict.value}: {found}, expected {dict(wanted)}"

    return check


async def fleet(stage: Stage) -> None:
    """Inventory sees every cluster."""

    async def look() -> str | None:
        missing = [name for name in CLUSTERS if name not in stage.view.inventories]
        return f"no inventory of {', '.join(missing)} yet" if missing else None

    await stage.until("inventory knows four clusters, their free GPUs, their stock and their serverless regions", look)


async def fill_and_overflow(stage: Stage) -> None:
    """The first article: priority groups, filled in order and divided by available replicas."""
    await stage.apply("vllm-deploy-pp.yaml", "vllm.yaml")
    first = {IDC: 8, HANGZHOU: 2}
    await stage.expect_placed(
        "10 replicas in the first group, divided by free GPUs (16 to 4): 8 and 2", VLLM, _shares(first)
    )
    await stage.expect_ready("their pods are ready", "test", "vllm-", first)


async def scale_out(stage: Stage) -> None:
    """Running GPUs first, then nodes from stock, in the order of the groups; what fits nowhere says why."""
    before = len(await stage.nodes(HANGZHOU)), len(await stage.nodes(BEIJING))
    await stage.scale(VLLM, 30)
    thirty = {IDC: 16, HANGZHOU: 12, BEIJING: 2}
    placed = await stage.expect_placed(
        "30 replicas: the first group with its stock takes 28, the next one 2", VLLM, _shares(thirty)
    )
    share = placed.share(HANGZHOU)
    elastic = share.count(Source.ELASTIC) if share else 0
    if elastic != 8:
        raise StepFailed(f"8 of the replicas in {HANGZHOU} should wait for nodes from stock, {elastic} do")
    await stage.expect_ready("all 30 are ready", "test", "vllm-", thirty)
    after = len(await stage.nodes(HANGZHOU)), len(await stage.nodes(BEIJING))
    if (after[0] - before[0], after[1] - before[1]) != (2, 0):
        raise StepFailed(
            f"two nodes should have been created in {HANGZHOU} and none in {BEIJING}, not {before} → {after}"
        )
    stage.say(f"   ok  two nodes were created in {HANGZHOU}, none in {BEIJING}: only for what did not fit")
    await stage.scale(VLLM, 40)
    full = {IDC: 16, HANGZHOU: 12, BEIJING: 8}

    def check(placement: Placement) -> str | None:
        if placement.verdict is not Verdict.PARTIALLY_SCHEDULED or placement.unplaced != 4:
            return f"{placement.verdict.value}, {placement.unplaced} unplaced"
        return _shares(full)(placement)

    placed = await stage.expect_placed("40 replicas: 36 run, stock is used up, 4 stay unplaced", VLLM, check)
    if not placed.reasons:
        raise StepFailed("the unplaced replicas should say why")
    for reason in placed.reasons[:3]:
        stage.say(f"       {reason.cluster or 'fleet'}: {reason.code.value}: {reason.message}")
    await stage.expect_ready("the 36 are ready", "test", "vllm-", full)


async def scale_in(stage: Stage) -> None:
    """The lowest group goes first, and gives its nodes back."""
    await stage.scale(VLLM, 20)

    def check(placement: Placement) -> str | None:
        if placement.share(BEIJING) is not None or placement.placed != 20:
            return f"{ {s.cluster: s.replicas for s in placement.shares} }"
        return None

    await stage.expect_placed(f"20 replicas: {BEIJING}, the lowest group, is left first", VLLM, check)
    await stage.expect_ready("the pods there are gone", "test", "vllm-", stage.shares(VLLM))

    async def back() -> str | None:
        nodes = await stage.nodes(BEIJING)
        return None if len(nodes) == 1 else f"nodes are {', '.join(nodes)}"

    await stage.until(f"the node that {BEIJING} had created is given back", back)
    await stage.scale(VLLM, 4)
    await stage.expect_placed("4 replicas", VLLM, lambda p: None if p.placed == 4 else f"{p.placed} placed")
    await stage.expect_ready("4 are ready", "test", "vllm-", stage.shares(VLLM))


async def whole_or_not_at_all(stage: Stage) -> None:
    """A gang that fits nowhere as a whole starts nothing, though the fleet has the GPUs."""
    await stage.apply("jobs-pp.yaml", "train-large.yaml")

    def refused(placement: Placement) -> str | None:
        if placement.verdict is not Verdict.UNSCHEDULABLE or placement.placed:
            return f"{placement.verdict.value}, {placement.placed} placed"
        return None

    placed = await stage.expect_placed("12 pods of 2 GPUs fit no single cluster: nothing is placed", LARGE, refused)
    for reason in placed.reasons[:3]:
        stage.say(f"       {reason.cluster or 'fleet'}: {reason.code.value}: {reason.message}")
    for cluster in (IDC, HANGZHOU, BEIJING):
        if await stage.pods(cluster, "test", "train-large"):
            raise StepFailed(f"{cluster} has pods of the job that does not fit")
    await stage.delete(LARGE)
    await stage.until("it is deleted", _gone(stage, LARGE))
    await stage.apply("train.yaml")
    await stage.expect_placed("4 pods of 2 GPUs go whole to the data centre", TRAIN, _shares({IDC: 4}))
    await stage.expect_ready("all 4 are ready", "test", "train-", {IDC: 4})


async def job_moves(stage: Stage) -> None:
    """A failed job is taken back, confirmed gone, and runs elsewhere; never in two places."""
    client = stage.clients[IDC]
    resource = await client.resource_for("v1", "Pod")
    victim = next(p for p in await stage.pods(IDC, "test", "train-") if "worker" in p["metadata"]["name"])
    status = {
        "phase": "Failed",
        "reason": "Evicted",
        "message": "The node was low on resource: memory.",
        "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}],
    }
    await client.patch_status(resource, victim["metadata"]["name"], status, "test", field_manager="kubelet")
    stage.say(f"       {victim['metadata']['name']} was evicted by its kubelet in {IDC}: the job fails there")
    both: list[str] = []

    async def moved() -> str | None:
        running = await stage.ready("test", "train-")
        if len(running) > 1:
            both.append(str(running))
        placement = stage.placement(TRAIN)
        elsewhere = {c: n for c, n in running.items() if c != IDC}
        if sum(elsewhere.values()) == 4 and IDC not in running:
            return None
        return f"ready are {running or 'none'}; {placement.verdict.value if placement else '-'}"

    await stage.until("it is taken back, confirmed gone, and runs in another cluster", moved)
    if both:
        raise StepFailed(f"the job was live in two clusters at once: {both[0]}")
    for name in await _objects(stage, IDC, "kubeflow.org/v1", "PyTorchJob", "test"):
        raise StepFailed(f"{IDC} still holds {name}")
    stage.say(f"   ok  {IDC} holds no copy any more")
    await stage.delete(TRAIN)
    await stage.until("the job is deleted", _gone(stage, TRAIN))


async def node_fails(stage: Stage) -> None:
    """Pods that stay pending move; pods that wait for a node that is coming do not."""

    await stage.scale(VLLM, 0)

    async def given_back() -> str | None:
        nodes = await stage.nodes(HANGZHOU)
        free = {name: stage.free_gpus(name) for name in (IDC, HANGZHOU)}
        return None if len(nodes) == 1 and free == {IDC: 16, HANGZHOU: 4} else f"nodes {', '.join(nodes)}; free {free}"

    await stage.until("scaled to 0: every node that was created is given back", given_back)
    await stage.scale(VLLM, 20)
    await stage.expect_placed("20 replicas fill the first group again", VLLM, _shares({IDC: 16, HANGZHOU: 4}))
    await stage.expect_ready("20 are ready", "test", "vllm-", {IDC: 16, HANGZHOU: 4})
    client = stage.clients[IDC]
    node = (await stage.nodes(IDC))[0]
    resource = await client.resource_for("v1", "Node")
    # As an administrator says it of a machine that lost its power. Taints like unreachable are the node controllers'
    # own, and they take them off a node whose kubelet reports.
    taints = [{"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}]
    await client.patch_merge(
        resource, node, {"spec": {"unschedulable": True, "taints": taints}}, field_manager="kubectl"
    )
    stage.say(f"       node {node} of {IDC} fails: its 8 pods are evicted and find no room there")
    waited: list[int] = []

    async def moved() -> str | None:
        shares = stage.shares(VLLM)
        pods = await stage.pods(HANGZHOU, "test", "vllm-")
        waiting = sum(1 for p in pods if not is_ready(p))
        if waiting:
            waited.append(shares.get(HANGZHOU, 0))
        ready = await stage.ready("test", "vllm-")
        # Pods that turn pending in the next second move on their own, and a node that is coming for others is no room.
        if ready == shares and sum(shares.values()) == 20 and shares.get(IDC) == 8 and shares.get(HANGZHOU, 0) > 4:
            return None
        return f"decided {shares}, ready {ready}"

    await stage.until("the 8 pending pods moved to other clusters, and nodes were created for them", moved)
    stage.say(f"       now {', '.join(f'{n} in {c}' for c, n in stage.shares(VLLM).items())}")
    if len(await stage.nodes(HANGZHOU)) < 2:
        raise StepFailed(f"nodes should have been created in {HANGZHOU}")
    if not waited:
        raise StepFailed("pods should have waited for the nodes that were being created")
    if any(later < earlier for earlier, later in pairwise(waited)):
        raise StepFailed(f"pods that waited for a node were moved away: {waited}")
    stage.say("   ok  while they waited for their nodes, longer than pods may stay pending, they were left alone")


async def serverless(stage: Stage) -> None:
    """The second article: the first serverless region is out of stock, so the pod goes to the second."""
    await stage.apply("nginx-pp.yaml", "multi-vk-gpu-resourcepolicy.yaml", "nginx-gpu-resourcepolicy.yaml")
    await stage.expect_placed("the pod goes to the registered cluster", NGINX, _shares({REGISTERED: 1}))
    await stage.expect_ready("it is ready", "default", "nginx-gpu-", {REGISTERED: 1})
    [pod] = await stage.pods(REGISTERED, "default", "nginx-gpu-")
    labels: dict[str, Any] = pod["metadata"].get("labels") or {}
    region = labels.get("alibabacloud.com/serverless-region-id")
    node = pod["spec"].get("nodeName")
    if region != "cn-wulanchabu" or node != "virtual-kubelet-cn-wulanchabu":
        raise StepFailed(f"it should run in cn-wulanchabu with that unit's labels, not on {node} with region {region}")
    stage.say("   ok  cn-zhangjiakou has no T4 left, so it runs in cn-wulanchabu, with that unit's labels")


Step = tuple[str, Callable[[Stage], Awaitable[None]]]
STORY: tuple[Step, ...] = (
    ("A fleet: a data centre, two cloud regions, a registered cluster", fleet),
    ("Priority groups: fill the first, divide by available replicas", fill_and_overflow),
    ("Scaling out with ecsProvision: nodes from stock only for what does not fit", scale_out),
    ("Scaling in: the lowest group goes first", scale_in),
    ("A training job is placed whole or not at all", whole_or_not_at_all),
    ("A job fails in its cluster and runs elsewhere", job_moves),
    ("A node fails: pending pods move, pods that wait for a node do not", node_fails),
    ("Serverless regions by ResourcePolicy", serverless),
)


async def tell(stage: Stage) -> None:
    """Tells the whole story. Raises StepFailed at the first step that is not so."""
    for number, (title, step) in enumerate(STORY, 1):
        stage.say(f"\n{number}. {title}")
        await step(stage)


def _gone(stage: Stage, workload: str) -> Callable[[], Awaitable[str | None]]:
    async def look() -> str | None:
        placement = stage.placement(workload)
        return None if placement is None else placement.verdict.value

    return look


async def _objects(stage: Stage, cluster: str, api_version: str, kind: str, namespace: str) -> list[str]:
    client = stage.clients[cluster]
    listing = await client.list(await client.resource_for(api_version, kind), namespace)
    return [item["metadata"]["name"] for item in listing.items]
