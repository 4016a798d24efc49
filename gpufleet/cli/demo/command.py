"""The command: starts the system with short time-outs, tells the story, shows what ran where and why."""

from __future__ import annotations

import asyncio
import time

from gpufleet.cli.demo.stage import Stage, StepFailed
from gpufleet.cli.demo.story import CLUSTERS, tell
from gpufleet.cli.errors import CliError, Exit
from gpufleet.cli.output import out, table
from gpufleet.cli.plan import where
from gpufleet.cli.system import System
from gpufleet.cli.up import default_fleet
from gpufleet.model.placement import Placement

# Shorter than the defaults, which are those of ACK One, so that the story takes less than two minutes.
SHORT = {
    "GPUFLEET_RESCHEDULER_CHECK_EVERY": ("1", "pending pods are looked at every 1 s (default 120 s)"),
    "GPUFLEET_RESCHEDULER_PENDING_AFTER": ("2", "a pod may be pending for 2 s (default 30 s)"),
    "GPUFLEET_RESCHEDULER_BACKOFF_FIRST": ("1", "the back-off between moves starts at 1 s (default 10 s)"),
    "GPUFLEET_INVENTORY_PROVISION_TIMEOUT": ("5", "a node may take 5 s to be provisioned (default 900 s)"),
    "GPUFLEET_INVENTORY_HEARTBEAT": ("2", "inventory beats every 2 s (default 10 s)"),
}
SIMULATION = (("namespace", "test"), ("idle-seconds", "2"))


def demo(*, keep: bool) -> None:
    """Tells the story; raises CliError if a step is not as it should be."""
    asyncio.run(_demo(keep))


async def _demo(keep: bool) -> None:
    begun = time.monotonic()
    system = System(
        fleet=default_fleet(),
        settings={name: value for name, (value, _) in SHORT.items()},
        simulation=SIMULATION,
        say=lambda text: out(f"   {text}"),
    )
    out("Starting a Kafka-compatible broker, four services and four simulated clusters on this machine.")
    out("Time-outs are shortened for this story:")
    for _, text in SHORT.values():
        out(f"   {text}")
    async with system:
        out(f"   ready after {time.monotonic() - begun:.1f} s")
        access = {name: {"kubeconfig": str(system.kubeconfig), "context": name} for name in CLUSTERS}
        async with Stage(system.kafka, access, out) as stage:
            try:
                await tell(stage)
            except StepFailed as error:
                failed = system.failed()
                logs = system.keep_logs()
                raise CliError(
                    f"this is not as it should be: {error}{'; ' + failed if failed else ''}\nlogs are in {logs}",
                    Exit.FAILED,
                ) from error
            _summary(stage)
        out(f"\nAll of it was so, in {time.monotonic() - begun:.0f} s. To look around yourself:")
        out("   gpufleet up            # keeps such a system running and prints its addresses")
        out("   gpufleet get workloads -o wide, gpufleet explain NAMESPACE/KIND/NAME, gpufleet describe CLUSTER")
        if keep:
            out(f"\nKafka {system.bootstrap}, kubeconfig {system.kubeconfig}; Ctrl-C stops everything")
            await asyncio.Event().wait()


def _summary(stage: Stage) -> None:
    out("\nWhat ran where, and why")
    placed = [[p.workload, f"{p.placed}/{p.replicas}", where(p), _why(p)] for p in stage.view.placements()]
    table(["workload", "placed", "clusters", "why"], placed)
    out()
    rows = [
        [name, sum(c.nodes for c in stage.view.inventories[name].node_classes), stage.free_gpus(name)]
        for name in CLUSTERS
    ]
    table(["cluster", "nodes", "free gpus"], rows)


def _why(placement: Placement) -> str:
    """Returns the reasons of the clusters that did not get (more of) it; none: the first choice took all."""
    reasons = [f"{r.cluster or 'fleet'}: {r.code.value}" for r in placement.reasons]
    return ", ".join(reasons) or "fits where it is wanted first"
