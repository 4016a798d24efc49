"""The whole system on one machine: broker, simulated clusters, four services; started and stopped as one.

Clusters that have a kubeconfig are real and only registered; the others are simulated. Used by `gpufleet up`, by
`gpufleet demo` and by tests. Nothing is left behind: children end with this process, however it ends, and everything
that is written is below one folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpufleet.bus.admin import adopt_shards, apply, connect_admin
from gpufleet.bus.client import open_client
from gpufleet.bus.settings import KafkaSettings
from gpufleet.bus.topics import load_registry
from gpufleet.cli.declared import follow
from gpufleet.cli.errors import CliError, Exit
from gpufleet.cli.live import SOURCE, tables
from gpufleet.embedded.broker import BrokerError, EmbeddedBroker
from gpufleet.embedded.ports import free_ports
from gpufleet.embedded.process import SupervisedProcess
from gpufleet.model.names import KIND_PREFIX
from gpufleet.wire.records import dump_policy

SERVICES = ("inventory", "scheduler", "dispatcher", "rescheduler")
TOGETHER = "gpufleet"  # the one process of `--single-process`
# The embedded broker does not wake a waiting fetch, so readers ask often; those in no hurry less so.
_EMBEDDED_FETCH_WAIT_MS = 20
_EMBEDDED_FETCH_WAITS_MS = {"inventory": 200, "rescheduler": 100}
# It looks at every partition for every fetch, and one instance of each service owns all of them anyway.
_EMBEDDED_SHARDS = 2
_READY_TIMEOUT = 60.0

Say = Callable[[str], None]


@dataclass
class System:
    """What to start. ``fleet``: Cluster documents; ``kubeconfigs``: how real clusters are reached, by cluster name.

    A document whose cluster has a kubeconfig describes that cluster, all others are simulated; a kubeconfig without a
    document is registered with its name alone. ``kinds``: WorkloadKind documents, declared from the start.
    ``bootstrap`` empty: the embedded broker on ``broker_port`` (0: a free one). ``settings``: environment variables
    for the services, for example shorter time-outs. ``folder``: where logs and kubeconfigs go; a temporary one by
    default.
    """

    fleet: Sequence[Mapping[str, Any]] = ()
    kinds: Sequence[Mapping[str, Any]] = ()
    kubeconfigs: Mapping[str, Path] = field(default_factory=dict)
    bootstrap: str = ""
    broker_port: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)
    single_process: bool = False
    folder: Path | None = None
    simulation: Sequence[tuple[str, str]] = (("namespace", "test"),)  # options of `python -m sim`
    say: Say = lambda _: None
    broker: EmbeddedBroker | None = field(default=None, init=False)
    children: dict[str, SupervisedProcess] = field(default_factory=dict, init=False)
    ports: dict[str, int] = field(default_factory=dict, init=False)
    _own_folder: bool = field(default=False, init=False)
    _token: str = field(default_factory=lambda: secrets.token_hex(8), init=False)
    _following: asyncio.Task[None] | None = field(default=None, init=False)

    # -- addresses -----------------------------------------------------------------------------------------------

    @property
    def root(self) -> Path:
        """The folder with everything that the system writes."""
        assert self.folder is not None
        return self.folder

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig with one context per simulated cluster."""
        return self.root / "kubeconfig"

    @property
    def kafka(self) -> KafkaSettings:
        """How to reach the broker from this process."""
        if self.broker is None:
            return KafkaSettings(bootstrap=self.bootstrap) if self.bootstrap else KafkaSettings()
        return KafkaSettings(bootstrap=self.bootstrap, fetch_wait_ms=_EMBEDDED_FETCH_WAIT_MS, shards=_EMBEDDED_SHARDS)

    @property
    def simulated(self) -> list[Mapping[str, Any]]:
        """Documents of the clusters that are simulated: those without a kubeconfig."""
        return [document for document in self.fleet if document["metadata"]["name"] not in self.kubeconfigs]

    def url(self, name: str) -> str:
        """The HTTP address of a service."""
        return f"http://127.0.0.1:{self.ports[name]}"

    # -- start ---------------------------------------------------------------------------------------------------

    async def start(self) -> System:
        """Starts everything and waits until it is ready. Raises CliError; what was started is stopped then."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def _start(self) -> None:
        if self.folder is None:
            self.folder, self._own_folder = Path(tempfile.mkdtemp(prefix="gpufleet-")), True
        (self.root / "logs").mkdir(parents=True, exist_ok=True)
        if not self.bootstrap:
            self._start_broker()
        names = [*(("sim",) if self.simulated else ()), *SERVICES]
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        registry = load_registry(prefix=self.kafka.topic_prefix, shards=self.kafka.shards)
        async with connect_admin(self.kafka) as admin:
            await adopt_shards(admin, registry, self.kafka)
            await apply(admin, registry, replication_factor=self.kafka.replication_factor)
        if self.single_process:
            self._start_together()
        else:
            if self.simulated:
                self._spawn("sim", ["sim", *self._simulation_arguments()])
            for name in SERVICES:
                self._start_service(name)
        self.say("services started")
        if self.simulated:
            await self._simulation_ready()
        await self.register()
        if self.simulated:
            token = dict(self.simulation).get("control-token", self._token)
            url = f"https://127.0.0.1:{self.ports['sim']}"
            self._following = asyncio.create_task(follow(self.kafka, self.kubeconfig, url, token, self.say))
        await asyncio.gather(self._inventoried(), *(self._ready(name, "/readyz") for name in SERVICES))

    async def _inventoried(self) -> None:
        """Waits for the first snapshot of every cluster, so that the first decision sees the whole fleet."""
        names = {d["metadata"]["name"] for d in self.fleet} | set(self.kubeconfigs)
        async with tables(self.kafka, ("inventory",)) as view:
            if not await view.until(lambda: names <= view.inventories.keys(), _READY_TIMEOUT):
                missing = ", ".join(sorted(names - view.inventories.keys()))
                self.say(f"no inventory of {missing} yet; `gpufleet doctor` looks for the cause")
                return
        self.say("every cluster has reported what it has")

    def _start_broker(self) -> None:
        self.broker = EmbeddedBroker(port=self.broker_port, log=self.root / "logs" / "broker.log")
        try:
            self.broker.start()
        except BrokerError as error:
            self.broker = None
            raise CliError(str(error), Exit.UNREACHABLE) from error
        self.bootstrap = self.broker.bootstrap
        self.say(f"broker at {self.bootstrap}")

    def _simulation_arguments(self) -> list[str]:
        fleet = self.root / "fleet.json"
        items = {"apiVersion": "v1", "kind": "List", "items": [*self.kinds, *self.simulated]}
        fleet.write_text(json.dumps(items), encoding="utf-8")
        return [
            f"--fleet={fleet}",
            f"--port={self.ports['sim']}",
            f"--kubeconfig={self.kubeconfig}",
            f"--control-token={self._token}",
            *(f"--{name}={value}" for name, value in self.simulation),
        ]

    def _start_together(self) -> None:
        """Everything but the broker in one process."""
        ports = [f"{name}={self.ports[name]}" for name in SERVICES]
        simulation = ["--simulate", *self._simulation_arguments()] if self.simulated else []
        self._spawn(TOGETHER, ["gpufleet.cli.together", *ports, *simulation])

    def _start_service(self, name: str) -> None:
        self._spawn(name, [f"services.{name}"])

    def _spawn(self, name: str, module: Sequence[str]) -> None:
        environment = {
            **os.environ,
            "GPUFLEET_KAFKA_BOOTSTRAP": self.bootstrap,
            "GPUFLEET_HTTP_HOST": "127.0.0.1",
            "GPUFLEET_HTTP_PORT": str(self.ports.get(name, 0)),
            "GPUFLEET_LOG_FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
        }
        if self.broker is not None:
            wait = _EMBEDDED_FETCH_WAITS_MS.get(name, _EMBEDDED_FETCH_WAIT_MS)
            environment.setdefault("GPUFLEET_KAFKA_FETCH_WAIT_MS", str(wait))
            environment["GPUFLEET_KAFKA_IDEMPOTENCE"] = "off"
            # Its groups take half of a session to form.
            environment.setdefault("GPUFLEET_KAFKA_SESSION_TIMEOUT", "8")
        environment |= self.settings
        # -P: a folder called `sim` or `services` where the user happens to be is not ours.
        child = SupervisedProcess(
            [sys.executable, "-P", "-m", *module], env=environment, log=self.root / "logs" / f"{name}.log"
        )
        self.children[name] = child.start()

    async def _ready(self, name: str, path: str) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT
        answer = "no answer"
        while True:
            child = self._child(name)
            if not child.running:
                raise CliError(f"{name} ended with {child.returncode}:\n{child.log_tail()}", Exit.UNREACHABLE)
            ready, answer = await asyncio.to_thread(_probe, f"{self.url(name)}{path}")
            if ready:
                self.say(f"{name} ready")
                return
            if time.monotonic() > deadline:
                raise CliError(f"{name} is not ready after {_READY_TIMEOUT:g} s: {answer}", Exit.UNREACHABLE)
            await asyncio.sleep(0.1)

    def _child(self, name: str) -> SupervisedProcess:
        return self.children[TOGETHER if self.single_process else name]

    async def _simulation_ready(self) -> None:
        """The simulation writes its kubeconfig when it answers."""
        deadline = time.monotonic() + _READY_TIMEOUT
        while not self.kubeconfig.exists():
            child = self._child("sim")
            if not child.running or time.monotonic() > deadline:
                raise CliError(f"the simulated clusters did not start:\n{child.log_tail()}", Exit.UNREACHABLE)
            await asyncio.sleep(0.05)
        self.say("simulated clusters ready")

    async def register(self) -> None:
        """Writes the kinds of the fleet, and a registration for every cluster."""
        async with open_client(self.kafka, source=SOURCE, writes=("clusters", "policies")) as client:
            for document in self.kinds:
                client.publisher.send("policies", KIND_PREFIX + document["metadata"]["name"], dump_policy(document))
            documents = {d["metadata"]["name"]: d for d in self.fleet}
            for name in self.kubeconfigs:
                documents.setdefault(name, {"metadata": {"name": name}})
            for name, document in documents.items():
                client.publisher.send("clusters", name, _registration(document, self.access(name)))

    def access(self, name: str) -> dict[str, str]:
        """How a cluster is reached (`spec.access` of its document)."""
        if name in self.kubeconfigs:
            return {"kubeconfig": str(self.kubeconfigs[name])}
        return {"kubeconfig": str(self.kubeconfig), "context": name}

    # -- restart and stop ----------------------------------------------------------------------------------------

    async def restart(self, name: str, *, kill: bool = False) -> None:
        """Stops one service (at once with ``kill``), starts it again and waits until it is ready."""
        child = self.children[name]
        await asyncio.to_thread(child.kill if kill else child.stop)
        self._start_service(name)
        await self._ready(name, "/readyz")

    def failed(self) -> str | None:
        """Returns what ended although it should run, or None."""
        for name, child in self.children.items():
            if not child.running:
                return f"{name} ended with {child.returncode}:\n{child.log_tail()}"
        if self.broker is not None and not self.broker.running:
            return "the broker ended"
        return None

    def keep_logs(self) -> Path:
        """Lets the folder stay when the system stops; returns where the logs are."""
        self._own_folder = False
        return self.root / "logs"

    async def stop(self) -> None:
        """Stops everything, services first; leaves nothing behind."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
            self._following = None
        # All at once, and one signal for each: a second one would end a service in the middle of its graceful stop.
        services = [self.children[name] for name in (*SERVICES, TOGETHER) if name in self.children]
        await asyncio.gather(*(asyncio.to_thread(child.stop) for child in services))
        if "sim" in self.children:
            await asyncio.to_thread(self.children["sim"].stop)
        self.children.clear()
        if self.broker is not None:
            self.broker.stop()
            self.broker = None
        if self._own_folder and self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    async def __aenter__(self) -> System:
        return await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()


def _registration(document: Mapping[str, Any], access: Mapping[str, Any]) -> bytes:
    metadata, spec = document["metadata"], dict(document.get("spec") or {})
    value = {**spec, "access": access, "name": metadata["name"], "labels": metadata.get("labels") or {}}
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _probe(url: str) -> tuple[bool, str]:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310  our own address
            return response.status == 200, ""
    except urllib.error.HTTPError as error:
        return False, error.read(500).decode(errors="replace").strip()
    except OSError as error:
        return False, str(error)
