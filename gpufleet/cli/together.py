"""All services, and simulated clusters if there are any, in one process: `gpufleet up --single-process`.

`python -m gpufleet.cli.together inventory=8081 scheduler=8082 … [--simulate ARGUMENTS OF python -m sim]`
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from typing import Any

from gpufleet.bus.runner import ServiceRunner, run_services
from gpufleet.bus.service import Service
from gpufleet.bus.settings import KafkaSettings
from gpufleet.telemetry import logs, memory
from gpufleet.telemetry.settings import ProcessSettings


def _service(name: str) -> Service:
    if name == "inventory":
        from services.inventory.bootstrap import build as inventory

        return inventory()
    if name == "scheduler":
        from services.scheduler.bootstrap import build as scheduler

        return scheduler()
    if name == "dispatcher":
        from services.dispatcher.bootstrap import build as dispatcher

        return dispatcher()
    from services.rescheduler.bootstrap import build as rescheduler

    return rescheduler()


def main(argv: Sequence[str]) -> None:
    """Runs until SIGTERM or SIGINT."""
    own, _, simulation = _split(list(argv), "--simulate")
    process = ProcessSettings()
    logs.configure(level=process.log_level, format_=process.log_format)
    memory.own()
    kafka = KafkaSettings()
    runners = []
    for argument in own:
        name, _, port = argument.partition("=")
        runners.append(ServiceRunner(_service(name), kafka=kafka, host=process.http_host, port=int(port)))
    asyncio.run(_run(runners, simulation))


async def _run(runners: Sequence[ServiceRunner], simulation: list[str]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(run_services(runners, stop), name="services")]
    if simulation:
        from sim.__main__ import read_arguments
        from sim.serve import serve_until

        parsed, arguments = read_arguments(simulation)
        # The simulation goes last: services say goodbye to their clusters first.
        ended = asyncio.Event()
        tasks[0].add_done_callback(lambda _: ended.set())
        tasks.append(asyncio.create_task(serve_until(ended, parsed, **arguments), name="sim"))
    await asyncio.gather(*tasks)


def _split(argv: list[str], mark: str) -> tuple[list[str], str, list[str]]:
    if mark not in argv:
        return argv, "", []
    at = argv.index(mark)
    return argv[:at], mark, argv[at + 1 :]


if __name__ == "__main__":
    main(sys.argv[1:])
