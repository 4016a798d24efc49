"""Runs services: feeds and ownership, health and metrics over HTTP, start and graceful stop.

One process can run several services in one event loop; signals are handled once, for all of them.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final
from uuid import uuid4

import structlog
from faststream.asgi import AsgiFastStream

from gpufleet.bus.admin import TopicsMissing, adopt_shards, apply, check_partitions, missing
from gpufleet.bus.broker import build_broker, framework_logger
from gpufleet.bus.dlq import DeadLetters
from gpufleet.bus.epochs import LOG_KEY, NONCE_HEADER, EpochTable, encode_claim, encode_log_id
from gpufleet.bus.feed import TableFeed
from gpufleet.bus.http import HttpServer, routes
from gpufleet.bus.leadership import Leadership
from gpufleet.bus.observe import add_health, add_metrics
from gpufleet.bus.owned import OwnedFeed
from gpufleet.bus.ownership import Ownership
from gpufleet.bus.publisher import Failure, Publisher, PublishError
from gpufleet.bus.records import Record
from gpufleet.bus.service import Bus, Service
from gpufleet.bus.settings import KafkaSettings, default_instance
from gpufleet.bus.topics import DLQ_SUFFIX, Registry, load_registry
from gpufleet.telemetry import memory
from gpufleet.telemetry.health import Health
from gpufleet.telemetry.metrics import Metrics

log = structlog.get_logger("gpufleet.bus")

_FLUSH_TIMEOUT: Final = 5.0
_FINISH_TIMEOUT: Final = 10.0
_DEAD_LETTER_INTERVAL: Final = 1.0
_TOPIC_INTERVAL: Final = 0.5


class ServiceRunner:
    """One service. `run` starts it, runs it until `stop` is set or something fails, and stops it gracefully."""

    def __init__(
        self,
        service: Service,
        *,
        kafka: KafkaSettings,
        host: str = "127.0.0.1",
        port: int = 0,
        instance: str | None = None,
        create_topics: bool = False,
        registry: Registry | None = None,
    ) -> None:
        """`port` 0 takes a free one (`address` says which). `create_topics`: apply the registry at start;
        otherwise wait `connect_timeout` for the topics to appear."""
        self.service = service
        self._kafka = kafka
        self._host, self._port = host, port
        self._instance = instance or default_instance()
        self._create_topics = create_topics
        self._registry = registry or load_registry(prefix=kafka.topic_prefix, shards=kafka.shards)
        self._fatal: asyncio.Future[None] | None = None
        self._tables_known: asyncio.Event | None = None
        self._ownership: Ownership | None = None
        self.address: tuple[str, int] | None = None
        self.bus: Bus | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Raises BusUnavailable, TopicsMissing, AddressTaken, FeedFailed, or what a background task raised."""
        structlog.contextvars.bind_contextvars(service=self.service.name)
        self._fatal = asyncio.get_running_loop().create_future()
        self._tables_known = asyncio.Event()
        bus = self._build()
        app = AsgiFastStream(
            bus.broker,
            asgi_routes=routes(bus.health, bus.metrics),
            logger=framework_logger(),
            on_startup=[self._before_reading],
            on_shutdown=[self._finish],
        )
        # Probes are answered before Kafka is there: liveness must not depend on it. So the server does not start the
        # application (which in FastStream 0.7 says "started" before the broker is, and hides when that fails).
        server = HttpServer(app, self._host, self._port, name=self.service.name)
        await server.start()
        self.address = server.address
        try:
            async with app.start_lifespan_context():
                log.info("service.started", instance=self._instance, http="http://{}:{}".format(*server.address))
                stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
                try:
                    await asyncio.wait([stopping, self._fatal], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    stopping.cancel()
                log.info("service.stopping")
        finally:
            for task in bus.background:
                task.cancel()
            await asyncio.gather(*bus.background, return_exceptions=True)
            await server.stop()
        if self._fatal.done():
            self._fatal.result()
        log.info("service.stopped")

    # Wiring.

    def _build(self) -> Bus:
        service, kafka, registry = self.service, self._kafka, self._registry
        broker = build_broker(kafka, client_id=f"{kafka.client_id}-{service.name}")
        publisher = Publisher(
            broker, registry, source=f"gpufleet/{service.name}", guard=self._may_send, on_failure=self._publish_failed
        )
        dead_letters = DeadLetters(publisher, registry, service.name, in_charge=self._may_send, clock=time.time)
        epochs = EpochTable()
        names = [*registry.names(service.reads), *dead_letters.topics, registry.name("epochs")]
        tables = TableFeed(broker, list(dict.fromkeys(names)), self._on_tables, kafka)
        bus = Bus(
            service=service.name,
            instance=self._instance,
            settings=kafka,
            registry=registry,
            broker=broker,
            publisher=publisher,
            dead_letters=dead_letters,
            epochs=epochs,
            tables=tables,
            health=Health(),
            metrics=Metrics(service.name),
            spawn=self._spawn,
        )
        self.bus = bus
        common: dict[str, Any] = {
            "service": service.name,
            "instance": self._instance,
            "epochs": epochs,
            "claim": self._claim,
            "barrier": self._tables_barrier,
        }
        if service.leads:
            self._ownership = bus.leadership = Leadership(broker, registry.name("epochs"), service, kafka, **common)
        elif service.owns:
            self._ownership = bus.owned = OwnedFeed(
                broker, registry.names(service.owns), _Shards(service), kafka, **common
            )
        add_health(bus, self._ownership)
        add_metrics(bus, self._ownership)
        service.bind(bus)
        return bus

    # Start and stop, called by FastStream.

    async def _before_reading(self) -> None:
        bus = self._bus
        await bus.broker.connect()
        await self._check_topics(bus)
        bus.spawn(bus.metrics.watch_loop(), "loop lag")
        bus.spawn(bus.tables.watch(), "tables")
        if self._ownership is not None:
            bus.spawn(self._ownership.failed(), "ownership")
        bus.spawn(self._open_tables(), "start")

    async def _check_topics(self, bus: Bus) -> None:
        admin = bus.broker.config.admin_client
        if self._create_topics:
            await adopt_shards(admin, self._registry, self._kafka)
            await apply(admin, self._registry, replication_factor=self._kafka.replication_factor)
            return
        needed = [*bus.tables.topics, *self._registry.names(self.service.owns)]
        deadline = time.monotonic() + self._kafka.connect_timeout
        told = False
        while absent := await missing(admin, self._registry, needed):
            problem = TopicsMissing(self._kafka.bootstrap, absent)
            if time.monotonic() > deadline:
                raise problem
            if not told:
                log.warning("bus.topics.missing", cause=str(problem), wait_for_seconds=self._kafka.connect_timeout)
                told = True
            await asyncio.sleep(_TOPIC_INTERVAL)
        await adopt_shards(admin, self._registry, self._kafka)
        await check_partitions(admin, self._registry, needed)

    async def _open_tables(self) -> None:
        bus = self._bus
        await bus.tables.caught_up()
        bus.dead_letters.open()
        await self.service.caught_up()
        memory.settle()
        log.info("service.caught_up", records=sum(bus.tables.next_offsets.values()))
        assert self._tables_known is not None
        self._tables_known.set()
        while True:
            await asyncio.sleep(_DEAD_LETTER_INTERVAL)
            bus.dead_letters.write_pending()

    async def _finish(self) -> None:
        """Finish, flush; leaving the group is up to FastStream, which stops the consumers next."""
        bus = self._bus
        try:
            async with asyncio.timeout(_FINISH_TIMEOUT):
                await self.service.stopping()
        except TimeoutError:
            log.warning("service.stopping.slow", waited_seconds=_FINISH_TIMEOUT)
        try:
            async with asyncio.timeout(_FLUSH_TIMEOUT):
                await bus.publisher.flush()
        except (TimeoutError, PublishError) as error:
            log.warning("service.flush.failed", pending=bus.publisher.pending, error=str(error))
        if self._ownership is not None:
            await self._ownership.stop()
        await bus.publisher.stop()

    # What the parts call.

    @property
    def _bus(self) -> Bus:
        assert self.bus is not None
        return self.bus

    def _may_send(self, shard: int | None) -> bool:
        return self._bus.may_send(shard)

    def _publish_failed(self, failure: Failure) -> None:
        self._bus.dead_letters.on_failure(failure)
        if not failure.topic.endswith(DLQ_SUFFIX):
            self.service.publish_failed(failure)

    def _on_tables(self, records: list[Record]) -> None:
        bus = self._bus
        epochs = self._registry.name("epochs")
        mine: list[Record] = []
        for record in records:
            if record.topic == epochs:
                bus.epochs.apply([record])
            elif record.topic.endswith(DLQ_SUFFIX):
                bus.dead_letters.apply([record])
            else:
                mine.append(record)
        if mine:
            self.service.on_records(mine)

    async def _tables_barrier(self) -> None:
        assert self._tables_known is not None
        await self._tables_known.wait()
        await self._bus.tables.barrier()
        if self.service.keeps_log_id and self._bus.epochs.log_id is None:
            await self._bus.publisher.confirm(
                "epochs", LOG_KEY, encode_log_id(uuid4().hex), guard=lambda _: self._alive()
            )
            await self._bus.tables.barrier()

    def _alive(self) -> bool:
        return self._ownership is not None and self._ownership.lease.safe

    async def _claim(self, key: str, shard: int | None, guard: Callable[[], bool]) -> int:
        """Publish a claim; its offset. An offset that the broker did not say is read back from the topic."""
        bus, nonce = self._bus, uuid4().hex
        place = await bus.publisher.confirm(
            "epochs",
            key,
            encode_claim(self.service.name, shard, self._instance, time.time()),
            headers={NONCE_HEADER: nonce},
            guard=lambda _: guard(),
        )
        if place.offset >= 0:
            return place.offset
        await bus.tables.barrier()
        claim = bus.epochs.highest(key)
        if claim is None or claim.nonce != nonce:
            raise ConnectionError(f"the claim of {key} was overtaken before its offset was known")
        return claim.epoch

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"{self.service.name} {name}")
        self._bus.background.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._bus.background.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error("service.task.failed", task=task.get_name(), error=repr(error), exc_info=error)
        if self._fatal is not None and not self._fatal.done():
            self._fatal.set_exception(error)


class _Shards:
    """A service as the sink of its shards."""

    def __init__(self, service: Service) -> None:
        self.on_records = service.on_shard_records
        self.acquired = service.acquired
        self.lost = service.lost


async def run_services(runners: Sequence[ServiceRunner], stop: asyncio.Event) -> None:
    """Run several services until `stop` is set. When one fails, all stop, and its error is raised."""

    async def run(runner: ServiceRunner) -> None:
        try:
            await runner.run(stop)
        finally:
            stop.set()

    # Each in a context of its own, so that log lines name the right service.
    results = await asyncio.gather(
        *(asyncio.create_task(run(runner), name=runner.service.name) for runner in runners), return_exceptions=True
    )
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def run_until_signal(runners: Sequence[ServiceRunner]) -> None:
    """Run services until SIGTERM or SIGINT (graceful stop; a second one ends at once)."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()

    def on_signal() -> None:
        if stop.is_set() and main is not None:
            main.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        await run_services(runners, stop)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
