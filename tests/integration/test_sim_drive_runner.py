"""Drives of several clusters on the event loop, in real time."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from sim.api.resources import DEPLOYMENTS, NODES
from sim.api.store import Store
from sim.model.api import DONE, Ref, Result, View
from sim.model.cluster import Behaviour, simulated
from sim.model.controllers.deployment import DeploymentController
from sim.model.drive import Drive
from sim.model.runner import Runner
from tests.support.simulation import deployment, node
from tests.support.waiting import eventually


@pytest.fixture
async def runner() -> AsyncIterator[Runner]:
    made = Runner()
    yield made
    made.close()


def cluster(name: str, behaviour: Behaviour | None = None) -> Drive:
    store = Store(name, now=time.time())
    store.create(NODES, node("n-0"), now=time.time())
    return Drive(store, simulated(behaviour))


def ready(drive: Drive, name: str = "web") -> int:
    found = drive.store.find(DEPLOYMENTS, "default", name) or {}
    return int((found.get("status") or {}).get("readyReplicas", 0))


async def test_a_change_is_worked_off_at_once_and_wake_ups_come_by_themselves(runner: Runner) -> None:
    quick, slow = cluster("quick"), cluster("slow", Behaviour(ready_after=0.2))
    begun = time.time()
    for drive in (quick, slow):
        runner.add(drive)
        drive.store.create(DEPLOYMENTS, deployment("web", 20), now=time.time())
    await eventually(lambda: ready(quick) == 20, "pods of the quick cluster are ready")
    await eventually(lambda: ready(slow) == 20, "pods of the slow cluster are ready")
    assert time.time() >= begun + 0.2


async def test_a_removed_drive_rests(runner: Runner) -> None:
    drive = cluster("c")
    runner.add(drive)
    await eventually(lambda: not drive.busy, "the cluster has settled")
    runner.remove(drive)
    drive.store.create(DEPLOYMENTS, deployment("web", 1), now=time.time())
    done = cluster("d")
    runner.add(done)
    done.store.create(DEPLOYMENTS, deployment("web", 1), now=time.time())
    await eventually(lambda: ready(done) == 1, "another cluster goes on")
    assert ready(drive) == 0


class Stumbling(DeploymentController):
    """Cannot read Deployments of one name."""

    def reconcile(self, view: View, key: Ref, now: float) -> Result:
        if key.name == "bad":
            raise KeyError("spec")
        return super().reconcile(view, key, now)


async def test_an_object_that_cannot_be_read_stops_nothing_else(
    runner: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store("c", now=time.time())
    store.create(NODES, node("n-0"), now=time.time())
    others = [c for c in simulated() if not isinstance(c, DeploymentController)]
    drive = Drive(store, [Stumbling(), *others])
    runner.add(drive)
    for name in ("bad", "web"):
        store.create(DEPLOYMENTS, deployment(name, 2), now=time.time())
    await eventually(lambda: ready(drive) == 2, "the other Deployment is ready")
    await eventually(lambda: drive.errors >= 1, "the first one to be stumbled over")  # and again, after a while
    assert "KeyError" in caplog.text
    assert DONE.writes == ()
