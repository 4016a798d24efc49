"""`gpufleet up`: the whole system on this machine until Ctrl-C."""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from gpufleet.cli import files as documents
from gpufleet.cli.errors import CliError, Exit
from gpufleet.cli.output import note, out
from gpufleet.cli.system import SERVICES, System
from gpufleet.model.kinds import Declaration
from gpufleet.wire.yaml import load

_LOOK_EVERY = 1.0


def default_fleet() -> list[Mapping[str, Any]]:
    """Returns the Cluster documents of the default fleet."""
    text = (files("gpufleet.cli") / "fleets" / "default.yaml").read_bytes()
    return [document.manifest for document in load(text, "default.yaml")]


def read_fleet(paths: Sequence[Path]) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Returns the Cluster documents in files, and the kinds that are declared there. Raises CliError."""
    parsed = documents.read([str(path) for path in paths])
    found = [item.document.manifest for item in parsed.objects if item.key in parsed.clusters]
    if not found:
        raise CliError(f"{', '.join(map(str, paths))}: no Cluster documents")
    return found, [item.document.manifest for item in parsed.objects if isinstance(item.value, Declaration)]


def up(
    *,
    fleet: Sequence[Path] | None,
    kafka: str,
    kubeconfigs: Sequence[str] | None,
    port: int,
    single_process: bool,
    folder: Path | None,
) -> None:
    """Starts the system and keeps it running."""
    real = dict(_named(text) for text in kubeconfigs or [])
    described: list[Mapping[str, Any]] = []
    declared: list[Mapping[str, Any]] = []
    if fleet:
        described, declared = read_fleet(fleet)
    elif not real:
        described = default_fleet()
    token = secrets.token_hex(8)
    system = System(
        fleet=described,
        kinds=declared,
        kubeconfigs=real,
        bootstrap=kafka,
        broker_port=port,
        single_process=single_process,
        folder=folder,
        simulation=(("namespace", "test"), ("control-token", token)),
        say=note,
    )
    asyncio.run(_up(system, token))


async def _up(system: System, token: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    begun = time.monotonic()
    starting = asyncio.create_task(system.start())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return
        starting.result()
        _announce(system, time.monotonic() - begun, token)
        while not stop.is_set():
            failed = system.failed()
            if failed:
                raise CliError(failed, Exit.FAILED)
            try:
                async with asyncio.timeout(_LOOK_EVERY):
                    await stop.wait()
            except TimeoutError:
                continue
    finally:
        starting.cancel()
        stopping.cancel()
        note("stopping")
        await asyncio.gather(starting, return_exceptions=True)
        await system.stop()


def _announce(system: System, seconds: float, token: str) -> None:
    out(f"gpufleet is up after {seconds:.1f} s. Ctrl-C stops everything.")
    out(f"  Kafka          {system.bootstrap}")
    simulated = system.simulated
    if simulated:
        out(f"  kubeconfig     {system.kubeconfig}")
        names = ", ".join(str(d["metadata"]["name"]) for d in simulated)
        out(f"  clusters       {names} (kubectl --kubeconfig … --context NAME)")
        control = f"https://127.0.0.1:{system.ports['sim']}/control/clusters"
        out(f"  faults         {control}, bearer token {token} (docs/simulation.md)")
    for name in SERVICES:
        out(f"  {name:<14} {system.url(name)}/metrics, /livez, /readyz")
    out(f"  logs           {system.root / 'logs'}")
    out("")
    out("In another terminal:")
    if system.bootstrap != "127.0.0.1:9092":
        out(f"  export GPUFLEET_KAFKA_BOOTSTRAP={system.bootstrap}")
    out("  gpufleet get clusters")
    out("  gpufleet apply -f policy.yaml -f workload.yaml")


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise CliError(f"--kubeconfig {text}: write NAME=PATH, the name is the cluster's in policies")
    return name, Path(path).expanduser().resolve()
