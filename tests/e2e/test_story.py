"""The story of `gpufleet demo`, step for step, on Apache Kafka and real Kubernetes control planes.

What real clusters lack here (machines, job operators, the node autoscaler, virtual nodes) is played by kwok and by the
simulation's controllers, which work as clients of the API. The four services run unchanged, as processes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio

from gpufleet.cli.demo.command import SHORT, SIMULATION
from gpufleet.cli.demo.stage import Stage, StepFailed
from gpufleet.cli.demo.story import VLLM, tell
from gpufleet.cli.system import System
from gpufleet.cli.up import default_fleet
from gpufleet.model.placement import Placement
from tests.support.kafka import ApacheKafka
from tests.support.programme import programme
from tests.support.realfleet import RealFleet, real_fleet

PATIENCE = 90.0  # seconds that a step may take; some thirty processes share the machine
# A node that takes its 3 s here is ready later than that, where control planes share cores.
SETTINGS = {name: value for name, (value, _) in SHORT.items()} | {"GPUFLEET_INVENTORY_PROVISION_TIMEOUT": "30"}
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1200)]


@dataclass
class Theatre:
    """Everything that runs, and how to print a line past pytest's capture."""

    kafka: ApacheKafka
    clusters: RealFleet
    system: System
    stage: Stage
    say: Callable[[str], None]

    @asynccontextmanager
    async def step(self) -> AsyncIterator[None]:
        """Fails the test when a step is not so, and says what has ended and where the logs are."""
        try:
            yield
        except StepFailed as error:
            gone = [self.system.failed() or ""]
            if not self.clusters.lender.running:
                gone.append(f"sim.lend ended:\n{self.clusters.lender.log_tail()}")
            pytest.fail("\n".join([str(error), *filter(None, gone), f"logs are in {self.system.keep_logs()}"]))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def theatre(
    kafka: ApacheKafka, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[Theatre]:
    """One broker, four control planes, four services."""
    begun = time.monotonic()

    def say(text: str) -> None:
        for line in text.splitlines():
            programme(request.config, f"{time.monotonic() - begun:6.1f} {line}")

    say(f"\nbroker: Apache Kafka {kafka.version} at {kafka.bootstrap}")
    folder, fleet = tmp_path_factory.mktemp("story"), default_fleet()
    async with real_fleet(fleet, SIMULATION, folder) as clusters:
        for name, plane in clusters.planes.clusters.items():
            say(f"cluster {name}: kube-apiserver {plane.version} at {plane.server}, nodes by kwok")
        system = System(
            fleet=fleet,
            kubeconfigs=clusters.kubeconfigs,
            bootstrap=kafka.bootstrap,
            settings=SETTINGS,
            folder=folder,
            say=say,
        )
        async with system:
            access = {name: system.access(name) for name in clusters.kubeconfigs}
            async with Stage(system.kafka, access, say, patience=PATIENCE) as stage:
                yield Theatre(kafka, clusters, system, stage, say)
    say("stopped")


async def test_the_story(theatre: Theatre) -> None:
    async with theatre.step():
        await tell(theatre.stage)
    theatre.say("\nWhat ran where")
    for placement in theatre.stage.view.placements():
        where = ", ".join(f"{s.replicas} in {s.cluster}" for s in placement.shares)
        theatre.say(f"   {placement.workload}: {where or 'nothing'}")


async def test_killed_services_and_a_killed_broker_lose_nothing(theatre: Theatre) -> None:
    stage, system = theatre.stage, theatre.system
    async with theatre.step():
        await stage.apply("vllm-deploy-pp.yaml", "vllm.yaml")
        await _scaled(stage, 8)
        theatre.say("\nDispatcher and inventory are killed in the middle of work")
        await stage.scale(VLLM, 14)
        await asyncio.gather(system.restart("dispatcher", kill=True), system.restart("inventory", kill=True))
        await _scaled(stage, 14, ask=False)
        theatre.say("\nThe broker is killed, and comes back")
        await asyncio.to_thread(theatre.kafka.kill)
        scaling = asyncio.create_task(stage.scale(VLLM, 6))
        await asyncio.to_thread(theatre.kafka.start)
        await scaling
        await _scaled(stage, 6, ask=False)
        await stage.delete(VLLM)

        async def deleted() -> str | None:
            left = {name: len(await stage.pods(name, "test", "vllm-")) for name in stage.clients}
            return None if stage.placement(VLLM) is None and not any(left.values()) else f"pods: {left}"

        await stage.until("the workload is deleted everywhere", deleted)
    assert system.failed() is None


async def _scaled(stage: Stage, replicas: int, *, ask: bool = True) -> None:
    """Waits until so many replicas are decided on and ready, where they were decided to be."""
    if ask:
        await stage.scale(VLLM, replicas)

    def all_placed(placement: Placement) -> str | None:
        found = placement.replicas, placement.placed
        return None if found == (replicas, replicas) else f"{found[1]} of {found[0]} placed"

    await stage.expect_placed(f"{replicas} replicas", VLLM, all_placed)

    async def look() -> str | None:
        shares, ready = stage.shares(VLLM), await stage.ready("test", "vllm-")
        return None if shares == ready and sum(ready.values()) == replicas else f"decided {shares}, ready {ready}"

    await stage.until(f"{replicas} are ready", look)
