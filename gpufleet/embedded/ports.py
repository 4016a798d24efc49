"""Ports for programs that are started here and told where to listen."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_EPHEMERAL: Final = 32768
_LOWEST: Final = 10240


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that is free on ``host`` now; another process can take it before it is used."""
    return free_ports(1, host)[0]


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """``count`` different free TCP ports; all are held until the last is known, so none comes twice.

    They are below those that the system gives to connections and to whoever asks for any: such a one could be given
    away between the look and its use. Raises OSError if there are not so many.
    """
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        for port in _candidates():
            if len(ports) == count:
                return ports
            probe = socket.socket()
            try:
                probe.bind((host, port))
            except OSError:
                probe.close()
                continue
            held.enter_context(probe)
            ports.append(probe.getsockname()[1])
    raise OSError(f"no {count} free ports on {host}")


def _candidates() -> Iterator[int]:
    """Ports in random order, so that two who look at the same time hardly find the same; then any, at most 1,000."""
    try:
        first = int(_RANGE.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        first = _EPHEMERAL
    below = range(_LOWEST, first)
    yield from random.sample(below, min(len(below), 10_000))
    yield from [0] * 1000
