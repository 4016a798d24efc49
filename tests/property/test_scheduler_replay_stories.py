"""Whole stories with every feature at once: each decision in them is the same when it is made again."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from gpufleet.model.cluster import (
    ClusterSpec,
    ComponentPods,
    FreeBlock,
    Health,
    ModelStock,
    NamespaceQuota,
    NodeClass,
    SnapshotId,
    UnitPods,
    VirtualNode,
    WorkloadPods,
)
from gpufleet.model.placement import ClusterCap, Eviction, ObservedPhase, WorkloadHealth
from gpufleet.model.policy import (
    ClusterAffinity,
    DivisionType,
    PriorityClass,
    PropagationPolicy,
    ResourcePolicy,
    ResourceUnit,
    SpreadConstraint,
    StaticWeight,
    UnitResource,
)
from gpufleet.model.quota import ElasticQuotaTree, QueueRule
from gpufleet.model.resources import labels, resources
from gpufleet.model.selectors import LabelSelector, Taint
from gpufleet.model.workload import PodShape, Workload
from services.scheduler.core.events import (
    ClusterRegistered,
    ClusterRemoved,
    Evicted,
    InventoryChanged,
    PodsChanged,
    PolicyChanged,
    RescheduleRequested,
    Scaled,
    Tick,
    WorkloadDeleted,
)
from services.scheduler.core.settings import Settings
from tests.support.decisions import same_again
from tests.support.quotas import quota, tree
from tests.support.scheduling import GPU, World, deployment, gpus_free, inventory, job, policy

T = TypeVar("T")
SHARE = "aliyun.com/gpu-core.percentage"
SHARED = {"cpu": 96_000, "memory": 2**40, "pods": 110, GPU: 2, SHARE: 200}
REGION = {"type": "virtual-kubelet", "topology.kubernetes.io/region": "r0"}
APP = {"app": "x"}
MANIFEST = {"spec": {"template": {"metadata": {"labels": APP}, "spec": {}}}}
STEPS = (
    *("submit",) * 6,
    *("scale", "scale", "pods", "pods", "inventory", "inventory", "evict", "again", "delete"),
    *("policy", "time", "observe", "tree", "resubmit", "remove", "rank"),
)


class Story:
    """A fleet, its rules, and what happens to it, all drawn from one seed."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        settings = Settings(
            blocking=self.likely(0.2),
            overtake_after=self.one((300.0, 20.0)),
            stale_after=self.one((1e9, 60.0)),
            provision_retry=self.one((600.0, 50.0)),
        )
        self.world = World(settings=settings)
        self.names = [f"c{i}" for i in range(self.one((3, 8, 13, 16)))]  # less and more than are told with free blocks
        self.snapshots: Counter[str] = Counter()
        self.editions = 0
        self.keys: list[str] = []
        self.shared, self.quotas = self.likely(0.2), self.likely(0.55)
        for i, name in enumerate(self.names):
            taints = (Taint("m", self.one(("NoSchedule", "NoExecute"))),) if self.likely(0.07) else ()
            self.world.feed(ClusterRegistered(ClusterSpec(name, region=f"r{i % 3}", taints=taints)))
            self.publish(name)
        ranks = (PriorityClass("low", -5), PriorityClass("high", 5), PriorityClass("top", 50))
        self.world.feed(*map(PolicyChanged, ranks), PolicyChanged(self.rule()))
        if self.quotas:
            self.world.feed(PolicyChanged(self.tree()))
            if self.likely(0.3):
                rule = QueueRule("rule", "team", self.likely(0.5), self.draw.randint(0, 2), digest="rule")
                self.world.feed(PolicyChanged(rule))
        if self.likely(0.35):
            self.world.feed(PolicyChanged(self.units()))

    def one(self, of: Sequence[T]) -> T:
        return self.draw.choice(of)

    def likely(self, chance: float) -> bool:
        return self.draw.random() < chance

    def some(self) -> list[int]:
        return [self.draw.randint(0, 8) for _ in range(self.draw.randint(0, 2))]

    def publish(self, name: str) -> None:
        self.snapshots[name] += 1
        rest: dict[str, Any] = {"health": self.one((*(Health.READY,) * 8, Health.UNREACHABLE))}
        if self.likely(0.15):
            hard, used = self.draw.randint(2, 9), self.draw.randint(0, 2)
            rest["quotas"] = (NamespaceQuota("test", (GPU,), resources({GPU: hard}), resources({GPU: used})),)
        if self.likely(0.3):
            stock = self.one((None, (ModelStock("T4", 3),)))
            taint = Taint("virtual-kubelet.io/provider", "NoSchedule", "alibabacloud")
            rest["virtual_nodes"] = (VirtualNode("vk-r0", labels(REGION), (taint,), stock),)
        at, n = self.world.now, self.snapshots[name]
        self.world.feed(InventoryChanged(inventory(name, *self.classes(), at=at, n=n, **rest)))

    def classes(self) -> list[NodeClass]:
        found = [
            gpus_free(
                *self.some(),
                name=pool,
                stock=self.one((None, None, 0, 1, 3)),
                node_labels={"pool": pool},
                nodes=self.draw.randint(0, 4),
            )
            for pool in ("one", "two")
        ]
        if self.shared:
            devices: tuple[tuple[int, ...], ...] = self.one(
                (((1000, 1000),), ((500, 1000),), ((0, 250), (1000, 1000)), ())
            )
            free = tuple(
                FreeBlock(1, resources({**SHARED, GPU: sum(d == 1000 for d in each), SHARE: sum(each) // 10}), each)
                for each in devices
            )
            found.append(NodeClass("shared", resources(SHARED), 2, labels({"pool": "shared"}), free=free))
        return found

    def rule(self) -> PropagationPolicy:
        self.editions += 1
        half = len(self.names) // 2
        groups = self.one(
            (
                *((), ()),
                (self.names[:half], self.names[half:]),
                (self.names[half:], self.names),
                (self.names[:1], self.names[1:]),
            )
        )
        weights = (
            StaticWeight(ClusterAffinity(cluster_names=tuple(self.names[::2])), 2),
            StaticWeight(ClusterAffinity(), 1),
        )
        made = policy(
            *groups,
            division=self.one((*(DivisionType.DYNAMIC,) * 4, *DivisionType)),
            version=self.editions,
            name=self.one(("pp", "pp", "pq")),
            gang=self.likely(0.15),
            static_weights=weights,
            ecs_provision=self.likely(0.5),
            preempt_before_provision=self.likely(0.3),
            existing_capacity_first=self.likely(0.3),
            partial_statefulsets=self.likely(0.3),
            lazy=self.likely(0.15),
            priority=self.draw.randint(0, 2),
            priority_class=self.one(("", "", "", "low", "top")),
            queue_timeout=self.one((None, None, 40.0)),
        )
        region, few = SpreadConstraint("region", min_groups=1, max_groups=2), SpreadConstraint("cluster", max_groups=3)
        spread = self.one((*((),) * 4, (region,), (few,), (region, few)))
        return replace(made, placement=replace(made.placement, spread=spread))

    def tree(self) -> ElasticQuotaTree:
        self.editions += 1
        team, two = self.draw.randint(2, 20), self.draw.randint(2, 20)
        return tree(
            quota("team", team // 2, team, "test"),
            quota("two", two // 2, two),
            quota("x", None, self.one((None, 10))),
            total=self.one((None, 30)),
            version=self.editions,
        )

    def units(self) -> ResourcePolicy:
        return ResourcePolicy(
            "rp",
            "test",
            tuple(self.unit() for _ in range(self.draw.randint(1, 3))),
            LabelSelector(labels(APP)),
            self.one(("LackResourceOrExceedMax", "ExceedMax")),
            ignore_previous_pod=self.likely(0.3),
            ignore_terminating_pod=self.likely(0.5),
            digest="rp",
        )

    def unit(self) -> ResourceUnit:
        bounds = self.one((None, 2, 5)), self.one(((), ((GPU, 3),)))
        kind = self.one((UnitResource.IDC, UnitResource.ECS, UnitResource.ELASTIC, UnitResource.ACS))
        if kind is UnitResource.ACS:
            return ResourceUnit(kind, labels(REGION), *bounds, labels({"alibabacloud.com/gpu-model-series": "T4"}))
        where = labels({"pool": self.one(("one", "two"))})
        return ResourceUnit(kind, where, *bounds, labels({"unit": str(self.draw.randint(0, 3))}))

    def workload(self, name: str, number: int) -> Workload:
        kind = self.one(("Deployment", "Deployment", "Deployment", "StatefulSet", "job", "two parts", "nothing"))
        gpu = self.one((0, 1, 1, 2, 4, 8))
        rest: dict[str, Any] = {"uid": f"uid-{number}", "arrival": number}
        if self.quotas and self.likely(0.3):
            leaf = self.one(("two", "x", "nowhere"))
            rest["labels"] = labels({"quota.scheduling.alibabacloud.com/name": leaf})
        if kind in ("Deployment", "StatefulSet"):
            if self.shared and self.likely(0.4):
                rest["shape"] = PodShape(resources({"pods": 1, SHARE: self.one((30, 50, 100))}))
            pods = APP if self.likely(0.5) else None
            made = deployment(
                name, self.draw.randint(0, 20), gpu=gpu, kind=kind, pod_labels=pods, manifest=MANIFEST, **rest
            )
            made = replace(made, min_member=self.one((None, None, None, 3)))
        elif kind == "nothing":
            made = replace(deployment(name, 0, **rest), components=())
        else:
            parts = {"Worker": (self.draw.randint(1, 6), gpu)} | ({"Master": (1, 1)} if kind == "two parts" else {})
            made = job(name, parts, **rest)
        return replace(made, priority_class=self.one(("", "", "low", "high")))

    def go_on(self, number: int) -> None:
        """Lets one thing happen."""
        world = self.world
        world.now += self.one((0, 0, 1, 5, 40))
        step = self.one(STEPS)
        key = self.one(self.keys) if self.keys else ""
        entry = world.state.entries.get(key)
        placement = entry.placement if entry is not None else None
        if step == "submit" or not key:
            made = self.workload(f"w{number}", number)
            self.keys.append(made.key)
            world.submit(made)
        elif step == "resubmit":
            made = self.workload(key.rpartition("/")[2], number)
            if made.key == key:
                world.submit(replace(made, version=number))
        elif step == "scale":
            world.feed(Scaled(key, self.draw.randint(0, 20)))
        elif step == "again":
            world.feed(RescheduleRequested(key))
        elif step == "delete":
            self.keys.remove(key)
            world.feed(WorkloadDeleted(key, number))
        elif step == "inventory":
            self.publish(self.one(self.names))
        elif step == "policy":
            world.feed(PolicyChanged(self.rule()))
        elif step == "tree" and self.quotas:
            world.feed(PolicyChanged(self.tree()))
        elif step == "rank":
            rank = PriorityClass(self.one(("low", "high")), self.draw.randint(-9, 9), version=number)
            world.feed(PolicyChanged(rank))
        elif step == "remove" and self.likely(0.3):
            name = self.one(self.names)
            world.feed(ClusterRemoved(name) if self.likely(0.5) else ClusterRegistered(ClusterSpec(name, region="r0")))
        elif step == "time":
            world.now += self.one((10, 100, 400))
            world.feed(Tick())
        elif step == "evict" and placement is not None:
            caps = tuple(
                ClusterCap(share.cluster, self.draw.randint(0, 1), world.now + 60, "Pending")
                for share in placement.shares[: self.draw.randint(0, 2)]
            )
            later = world.now + self.one((0, 10))
            world.feed(Evicted(Eviction(key, placement.version, caps, attempts=1, not_before=later, at=world.now)))
        elif step in ("pods", "observe") and placement is not None and placement.shares:
            share = self.one(placement.shares)
            if step == "observe":
                phase = self.one((ObservedPhase.APPLIED, ObservedPhase.REFUSED))
                world.observed(key, share.cluster, phase, self.one(tuple(WorkloadHealth)))
                return
            units = (UnitPods(terminating=self.draw.randint(0, 2)),) if self.likely(0.3) else ()
            counts = tuple(
                (name, ComponentPods(self.draw.randint(0, count), provisioning=int(self.likely(0.3)), units=units))
                for name, count in share.components
            )
            snapshot = SnapshotId("", 0, self.snapshots[share.cluster])
            world.feed(PodsChanged(WorkloadPods(share.cluster, key, snapshot, counts)))


@pytest.mark.parametrize("seed", [1, 4, 142, 395])
def test_every_decision_of_a_story_is_the_same_when_it_is_made_again(seed: int) -> None:
    story = Story(seed)
    for number in range(14):
        story.go_on(number)
        same_again(story.world.last)
