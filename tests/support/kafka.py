"""A real Apache Kafka broker (KRaft, one node) on loopback, from Maven artifacts.

``tests/e2e/real/kafka/pom.xml`` is the recipe; the libraries (45 MB) and a class-data archive, which makes a start
three times faster, are kept in the cache. The broker does not outlive the test process.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpufleet.embedded.broker import answers
from gpufleet.embedded.ports import free_ports
from gpufleet.embedded.process import SupervisedProcess
from tests.support.cache import build_once, cache_dir, digest, require
from tests.support.waiting import wait_for

RECIPE = Path(__file__).resolve().parents[1] / "e2e" / "real" / "kafka"
START_TIMEOUT = 60.0
# A topic whose compaction a test waits for. The active segment is never cleaned and rolls on the next append only,
# so one more record has to be written after `segment.ms`.
COMPACTS_SOON: Mapping[str, str] = {
    "cleanup.policy": "compact",
    "segment.ms": "1000",
    "segment.bytes": "1048576",
    "min.cleanable.dirty.ratio": "0.01",
    "delete.retention.ms": "1000",
    "max.compaction.lag.ms": "2000",
}
_COPY_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qg"
_JVM = (
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
)
_SETTINGS: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # One node: internal topics cannot have three replicas.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "num.partitions": "1",
    "auto.create.topics.enable": "false",
    # No wait before the first rebalance; short sessions are allowed; hung transactions and segments end soon.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    "log.cleaner.backoff.ms": "500",
    "log.cleaner.dedupe.buffer.size": "8388608",
    "log.cleaner.threads": "1",
    # A broker that was killed may register again when its old session has ended (default 9000).
    "broker.heartbeat.interval.ms": "250",
    "broker.session.timeout.ms": "1500",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
}


class KafkaFailed(RuntimeError):
    """Apache Kafka's libraries could not be fetched, or the broker did not start."""


@dataclass
class ApacheKafka:
    """One broker. ``start()`` after ``stop()`` or ``kill()`` goes on with the same data on the same port.

    ``settings`` override the broker's settings. The data folder is temporary unless one is given.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    data: Path | None = None
    port: int = 0
    _folder: Path | None = field(default=None, init=False, repr=False)
    _controller_port: int = field(default=0, init=False, repr=False)
    _process: SupervisedProcess | None = field(default=None, init=False, repr=False)

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def version(self) -> str:
        """Version of the broker, from the recipe."""
        return _version()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    @property
    def pid(self) -> int:
        """Process id of the broker, 0 if it does not run."""
        return self._process.pid if self._process is not None and self._process.running else 0

    def start(self) -> ApacheKafka:
        """Start the broker and wait until it serves: 1.5 to 5 s. Raises ToolMissing or KafkaFailed."""
        if self.running:
            return self
        java = require("java", "Apache Kafka (Java 17 or newer)")
        installation = fetch()
        self._start(java, installation, ["-Xshare:auto", f"-XX:SharedArchiveFile={_archive(java, installation)}"])
        return self

    def _start(self, java: str, installation: Path, sharing: Sequence[str]) -> None:
        folder = self._prepare_folder()
        if not (folder / "log" / "meta.properties").exists():
            self._format(java, installation, folder)
        log = folder / "broker.log"
        seen = log.stat().st_size if log.exists() else 0
        command = [java, *_JVM, *sharing, *_logging(log), "-cp", class_path(installation)]
        self._process = SupervisedProcess(
            [*command, "kafka.Kafka", str(folder / "server.properties")], log=folder / "stdout.log"
        ).start()
        wait_for(lambda: self._serves(log, seen), "Apache Kafka to serve", START_TIMEOUT, every=0.05)

    def stop(self) -> None:
        """Stop cleanly (SIGTERM); the data stays until :meth:`remove`."""
        if self._process is not None:
            self._process.stop(grace=30.0)
            self._process = None

    def kill(self) -> None:
        """Crash: SIGKILL. What was acknowledged is in the page cache and survives."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def remove(self) -> None:
        """Kill the broker and delete its temporary data."""
        self.kill()
        if self._folder is not None and self.data is None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __enter__(self) -> ApacheKafka:
        try:
            return self.start()
        except BaseException:
            self.remove()
            raise

    def __exit__(self, *exc: object) -> None:
        self.remove()

    def _prepare_folder(self) -> Path:
        if self._folder is None:
            self._folder = self.data or Path(tempfile.mkdtemp(prefix="gpufleet-kafka-"))
            self._folder.mkdir(parents=True, exist_ok=True)
            if not self.port:
                self.port, self._controller_port = free_ports(2)
            self._controller_port = self._controller_port or free_ports(1)[0]
            self._write_settings(self._folder)
        return self._folder

    def _write_settings(self, folder: Path) -> None:
        client, controller = f"127.0.0.1:{self.port}", f"127.0.0.1:{self._controller_port}"
        settings = {
            **_SETTINGS,
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{client},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{client}",
            "log.dirs": str(folder / "log"),
            **self.settings,
        }
        text = "".join(f"{key}={value}\n" for key, value in settings.items())
        (folder / "server.properties").write_text(text)

    def _format(self, java: str, installation: Path, folder: Path) -> None:
        tool = [
            java,
            *_JVM,
            *_logging(folder / "format.log"),
            "-cp",
            class_path(installation),
            "kafka.tools.StorageTool",
        ]
        arguments = ["format", "-t", _CLUSTER_ID, "-c", str(folder / "server.properties")]
        done = subprocess.run([*tool, *arguments], check=False, capture_output=True, text=True)
        if done.returncode:
            raise KafkaFailed(f"cannot format the data folder of Apache Kafka:\n{done.stdout}{done.stderr}")

    def _serves(self, log: Path, seen: int) -> bool:
        if self._process is None or not self._process.running:
            tail = self._process.log_tail() if self._process is not None else ""
            raise KafkaFailed(f"Apache Kafka ended while starting:\n{tail}\n{_tail(log)}")
        # Lines of an earlier start must not count.
        started = log.exists() and b"Kafka Server started" in log.read_bytes()[seen:]
        return started and answers("127.0.0.1", self.port)


def fetch() -> Path:
    """Folder with the libraries in ``lib/``, fetched once. Raises ToolMissing or KafkaFailed."""
    pom = RECIPE / "pom.xml"
    return build_once(cache_dir() / "kafka" / f"{_version()}-{digest([pom.read_bytes()])}", _fetch)


def _version() -> str:
    found = re.search(r"<kafka\.version>(.*?)<", (RECIPE / "pom.xml").read_text(encoding="utf-8"))
    return found[1] if found else "unknown"


def _fetch(folder: Path) -> None:
    maven = require("mvn", "fetching Apache Kafka")
    require("java", "Apache Kafka (Java 17 or newer)")
    goal = [_COPY_DEPENDENCIES, f"-DoutputDirectory={folder / 'lib'}", "-DincludeScope=runtime"]
    done = subprocess.run(
        [maven, "-q", "-B", "-ntp", "-f", str(RECIPE / "pom.xml"), *goal], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise KafkaFailed(f"Maven could not fetch Apache Kafka:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")


def class_path(installation: Path) -> str:
    """All jars in a fixed order: a class-data archive is only used with the class path that it was made with."""
    return os.pathsep.join(sorted(str(jar) for jar in (installation / "lib").glob("*.jar")))


def _archive(java: str, installation: Path) -> Path:
    """The class-data archive for this Java, written once by a broker that starts and stops."""
    runtime = Path(java).resolve()
    name = digest([str(runtime).encode(), str(runtime.stat().st_mtime_ns).encode()])
    return build_once(installation / f"classes-{name}", lambda folder: _train(java, installation, folder)) / "kafka.jsa"


def _train(java: str, installation: Path, folder: Path) -> None:
    trainee = ApacheKafka()
    try:
        trainee._start(java, installation, [f"-XX:ArchiveClassesAtExit={folder / 'kafka.jsa'}"])
        trainee.stop()
    finally:
        trainee.remove()


def _logging(log: Path) -> list[str]:
    return [f"-Dlog4j2.configurationFile={RECIPE / 'log4j2.properties'}", f"-Dkafka.log.file={log}"]


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""
