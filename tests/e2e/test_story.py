"""The story of `gpufleet demo`, step for step, on Apache Kafka and real Kubernetes control planes.

What real clusters lack here (machines, job operators, the node autoscaler, virtual nodes) is played by kwok and by the
simulation's controllers, which work as clients of the API. The four services run unchanged, as processes.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gpufleet.cli.demo.command import SHORT, SIMULATION
from gpufleet.cli.demo.stage import Stage, StepFailed
from gpufleet.cli.demo.story import tell
from gpufleet.cli.system import System
from gpufleet.cli.up import default_fleet
from tests.support.kafka import ApacheKafka
from tests.support.realfleet import RealFleet, real_fleet

PATIENCE = 90.0  # seconds that a step may take; the box has two cores for some thirty processes


@pytest.mark.timeout(600)
async def test_the_story(kafka: ApacheKafka, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"{time.monotonic() - begun:6.1f} {text.strip()}", flush=True)  # noqa: T201

    fleet = default_fleet()
    say("the story on Apache Kafka and real control planes")
    async with real_fleet(fleet, SIMULATION, tmp_path) as clusters:
        say(f"control planes {', '.join(clusters.kubeconfigs)}")
        system = System(
            fleet=fleet,
            kubeconfigs=clusters.kubeconfigs,
            bootstrap=kafka.bootstrap,
            settings={name: value for name, (value, _) in SHORT.items()},
            folder=tmp_path,
            say=say,
        )
        async with system:
            access = {name: system.access(name) for name in clusters.kubeconfigs}
            async with Stage(system.kafka, access, say, patience=PATIENCE) as stage:
                try:
                    await tell(stage)
                except StepFailed as error:
                    pytest.fail(f"{error}\n{_state(system, clusters)}\nlogs are in {tmp_path}")
                for placement in stage.view.placements():
                    where = ", ".join(f"{s.cluster} {s.replicas}" for s in placement.shares)
                    say(f"{placement.workload}: {placement.placed}/{placement.replicas} on {where or 'nothing'}")
    say("all of it was so")


def _state(system: System, clusters: RealFleet) -> str:
    """What ended although it should run."""
    lender = "" if clusters.lender.running else f"sim.lend ended:\n{clusters.lender.log_tail()}"
    return "\n".join(text for text in (system.failed(), lender) if text)
