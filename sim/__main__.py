"""`python -m sim --fleet fleet.yaml --kubeconfig sim.kubeconfig`: simulated clusters that kubectl can talk to."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpufleet.model.cluster import Scoring
from gpufleet.telemetry import memory
from gpufleet.wire.documents import DocumentErrors, Parsed, parse_documents
from gpufleet.wire.yaml import load
from sim.model.cluster import Behaviour
from sim.serve import serve_until


def main() -> None:
    """Serves until SIGTERM or SIGINT. Exit code 2 for documents that cannot be used or a port that is taken."""
    try:
        parsed, arguments = read_arguments()
    except (OSError, DocumentErrors) as error:
        sys.exit(_say(str(error)))
    memory.own()
    try:
        asyncio.run(_run(parsed, arguments))
    except OSError as error:
        sys.exit(_say(f"cannot serve on {arguments['host']}:{arguments['port']}: {error}"))


def read_arguments(argv: Sequence[str] | None = None) -> tuple[Parsed, dict[str, Any]]:
    """Returns the fleet and the arguments of `sim.serve.serve`. Raises OSError or DocumentErrors."""
    options = _options(argv)
    documents = [d for path in options.fleet for d in load(path.read_bytes(), str(path))]
    behaviour = Behaviour(
        ready_after=options.ready_after,
        stop_seconds=options.stop_seconds,
        idle_seconds=options.idle_seconds,
        scoring=Scoring(packs=options.pack),
    )
    arguments: dict[str, Any] = {
        "host": options.host,
        "port": options.port,
        "tls": not options.plain_http,
        "kubeconfig": options.kubeconfig,
        "namespaces": options.namespace,
        "behaviour": behaviour,
        "control_token": options.control_token,
    }
    return parse_documents(documents), arguments


async def _run(parsed: Parsed, arguments: dict[str, Any]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve_until(stop, parsed, **arguments)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sim", description="Simulated clusters behind the Kubernetes API.")
    parser.add_argument("--fleet", type=Path, action="append", required=True, help="file with Cluster documents")
    parser.add_argument("--kubeconfig", type=Path, help="written when the clusters answer, one context per cluster")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--plain-http", action="store_true", help="no TLS; kubectl sends no token then")
    parser.add_argument("--namespace", action="append", default=[], help="namespace that every cluster gets")
    parser.add_argument("--control-token", default="", help="for /control/…; default: nobody knows it")
    parser.add_argument("--ready-after", type=float, default=0.0, help="seconds from bound to Ready")
    parser.add_argument("--stop-seconds", type=float, default=0.0, help="seconds from deleted to gone")
    parser.add_argument("--idle-seconds", type=float, default=600.0, help="how long a created node stays empty")
    parser.add_argument("--pack", action="store_true", help="bind to the fullest node, not the emptiest")
    return parser.parse_args(argv)


def _say(text: str) -> int:
    print(f"sim: {text}", file=sys.stderr)  # noqa: T201
    return 2


if __name__ == "__main__":
    main()
