"""The FastStream broker with gpufleet's defaults, and a connection that is retried and says why it fails."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import aiokafka
import structlog
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, for_code
from aiokafka.protocol.transaction import InitProducerIdRequest
from faststream import AckPolicy
from faststream._internal.endpoint.subscriber.usecase import SubscriberUsecase
from faststream.kafka import KafkaBroker
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from gpufleet.bus.ends import Ends
from gpufleet.bus.settings import KafkaSettings

log = structlog.get_logger("gpufleet.bus")

MAX_REQUEST_BYTES: Final = 1024 * 1024
MAX_BATCH_BYTES: Final = 64 * 1024
"""Per partition. Four times aiokafka's default, which doubles the throughput of small records."""

_RETRY_FIRST: Final = 0.1
_RETRY_LAST: Final = 2.0
_RETRY_QUIETLY: Final = 1.0
_NOISE_INTERVAL: Final = 10.0


class BusUnavailable(ConnectionError):
    """Kafka cannot be reached or refuses us. The text says what was tried, the cause and what to look at."""


class FleetBroker(KafkaBroker):
    """A KafkaBroker whose `connect` tries for `connect_timeout` seconds and then raises BusUnavailable."""

    def __init__(self, settings: KafkaSettings, *, client_id: str, middlewares: Any = ()) -> None:
        self.settings = settings
        self.idempotent: bool | None = None  # None: not known before the first connection
        self.ends = Ends(client_options(settings, client_id))
        self._started: list[tuple[SubscriberUsecase[Any], Callable[[], None]]] = []
        super().__init__(
            settings.servers,
            client_id=client_id,
            security=_security(settings),
            request_timeout_ms=round(settings.request_timeout * 1000),
            allow_auto_create_topics=False,  # topics come from the registry; a created one would not be compacted
            acks="all",
            linger_ms=settings.linger_ms,
            max_batch_size=MAX_BATCH_BYTES,
            max_request_size=MAX_REQUEST_BYTES,
            ack_policy=AckPolicy.MANUAL,  # nothing is committed: state is read from the beginning
            apply_types=False,  # handlers take what the decoder made, without validation by pydantic
            graceful_timeout=10.0,
            middlewares=middlewares,
            logger=framework_logger(),
            log_level=logging.DEBUG,  # what FastStream says of every batch
        )

    async def _connect(self) -> Callable[..., aiokafka.AIOKafkaConsumer]:
        self.idempotent = await reach(self.settings, str(self._connection_kwargs["client_id"]))
        self._connection_kwargs["enable_idempotence"] = self.idempotent
        await self.ends.open()
        return await super()._connect()

    async def stop(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> None:
        await super().stop(exc_type, exc_val, exc_tb)
        await self.ends.close()

    def on_subscriber_started(self, subscriber: SubscriberUsecase[Any], callback: Callable[[], None]) -> None:
        """Call `callback` when the subscriber's consumer is started, before it has read anything."""
        self._started.append((subscriber, callback))

    async def start(self) -> None:
        """Connect and start all subscribers at once.

        FastStream starts them one after the other, in the order of a set; a member of a group is started when it has
        joined, which takes seconds, and the tables could come after it.
        """
        await self.connect()
        callbacks = dict(self._started)

        async def start(subscriber: SubscriberUsecase[Any]) -> None:
            await subscriber.start()
            if (callback := callbacks.get(subscriber)) is not None:
                callback()

        await asyncio.gather(*map(start, self.subscribers))
        self.running = True


def build_broker(settings: KafkaSettings, *, client_id: str | None = None, middlewares: Any = ()) -> FleetBroker:
    """A broker that is not connected yet. Raises BusUnavailable for TLS or password files that cannot be read."""
    try:
        return FleetBroker(settings, client_id=client_id or settings.client_id, middlewares=middlewares)
    except OSError as error:  # ssl.SSLError is one
        raise BusUnavailable(f"the TLS or password files for Kafka cannot be read: {error}") from error


def client_options(settings: KafkaSettings, client_id: str) -> dict[str, Any]:
    """Connection options for aiokafka's own clients."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.servers,
        "client_id": client_id,
        "request_timeout_ms": round(settings.request_timeout * 1000),
        "security_protocol": settings.security_protocol,
        "ssl_context": settings.ssl_context(),
    }
    if settings.uses_sasl:
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_plain_username"] = settings.sasl_username
        options["sasl_plain_password"] = settings.password()
    return options


def _security(settings: KafkaSettings) -> BaseSecurity | None:
    context = settings.ssl_context()
    if not settings.uses_sasl:
        return BaseSecurity(ssl_context=context) if context else None
    kinds = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
    return kinds[settings.sasl_mechanism](
        username=settings.sasl_username,
        password=settings.password(),
        ssl_context=context,
        use_ssl=settings.uses_tls,
    )


async def reach(settings: KafkaSettings, client_id: str) -> bool:
    """Connect once, with retries; whether the producer can be idempotent. Raises BusUnavailable."""
    quieten()
    begin = time.monotonic()
    deadline = begin + settings.connect_timeout
    pause = _RETRY_FIRST
    told = False
    while True:
        causes = _Causes()
        client: AIOKafkaClient | None = None
        try:
            with causes:
                client = AIOKafkaClient(**client_options(settings, client_id))
                await client.bootstrap()
                return await _wants_idempotence(settings, client)
        except (KafkaError, OSError) as error:
            reason = explain(settings, causes.last or error)
            if time.monotonic() + pause > deadline or isinstance(error, IncompatibleBrokerVersion):
                raise BusUnavailable(reason) from error
            if not told and time.monotonic() - begin > _RETRY_QUIETLY:
                log.warning("bus.unreachable", cause=reason, retry_for_seconds=settings.connect_timeout)
                told = True
        finally:
            if client is not None:
                await client.close()
        await asyncio.sleep(pause)
        pause = min(pause * 2, _RETRY_LAST)


async def _wants_idempotence(settings: KafkaSettings, client: AIOKafkaClient) -> bool:
    if settings.idempotence != "auto":
        return settings.idempotence == "on"
    request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)
    try:
        response = await client.send(client.get_random_node(), request)
    except IncompatibleBrokerVersion as error:
        refusal = str(error)
    else:
        error_type = for_code(response.error_code)
        if not response.error_code:
            return True
        if error_type.retriable:
            raise error_type
        refusal = error_type.__name__
    log.info(
        "bus.producer.not_idempotent",
        answer=refusal,
        effect="a retry can write a record twice; readers pass over the second",
    )
    return False


def explain(settings: KafkaSettings, error: BaseException | str) -> str:
    """One sentence on why Kafka at `settings.bootstrap` cannot be used, and what to look at."""
    cause = " ".join(str(error).split()) or type(error).__name__
    low = cause.lower()
    where = f"Kafka at {settings.bootstrap} cannot be used"
    if "sasl" in low or "authentication" in low or "credential" in low:
        hint = "the broker refuses the user or password: check sasl_username, the password and sasl_mechanism"
    elif "certificate" in low:
        hint = "the broker's certificate is not trusted: check tls_ca_file and the host name in the certificate"
    elif "ssl" in low or "wrong_version_number" in low:
        hint = f"TLS failed: does this port speak TLS? security_protocol is {settings.security_protocol}"
    elif "name or service" in low or "getaddrinfo" in low or "nodename" in low or "resolution" in low:
        hint = "the host name is not known here: check bootstrap"
    elif "refused" in low or "connect call failed" in low:
        hint = "nothing listens there: is the broker running, are host and port right?"
    elif "timeout" in low or "timed out" in low:
        hint = f"no answer in time: is it a Kafka broker, and does this port speak {settings.security_protocol}?"
    elif "closed" in low or "reset" in low or "incomplete" in low:
        hint = (
            "the broker closed the connection: is it still starting, or is this a TLS or SASL port for a plain client? "
            f"security_protocol is {settings.security_protocol}"
        )
    else:
        hint = "check bootstrap, security_protocol and the broker's log"
    return f"{where}: {cause} ({hint})"


class _Causes:
    """Collects what aiokafka only logs: `Unable to bootstrap` has no cause, the line before it has."""

    def __init__(self) -> None:
        self.last: str | None = None

    def note(self, record: logging.LogRecord) -> None:
        if not record.getMessage().startswith("Unable to bootstrap"):
            error = record.args[-1] if isinstance(record.args, tuple) and record.args else None
            text = record.getMessage()
            self.last = text if str(error) else f"{text}{type(error).__name__}"  # a time-out has no text

    def __enter__(self) -> _Causes:
        _noise.watchers.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _noise.watchers.remove(self)


class _Noise(logging.Filter):
    """Lets one line of a kind through in ten seconds: with the broker away aiokafka writes fifty a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}
        self.watchers: list[_Causes] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        for watcher in self.watchers:
            watcher.note(record)
        kind = (record.name, str(record.msg))
        now = self._clock()
        last, held = self._seen.get(kind, (float("-inf"), 0))
        if now - last < _NOISE_INTERVAL:
            self._seen[kind] = (last, held + 1)
            return False
        self._seen[kind] = (now, 0)
        if held:
            record.msg = f"{record.getMessage()} (and {held} more like this)"
            record.args = ()
        return True


_noise = _Noise()


def quieten() -> None:
    """Rate-limit the loggers of aiokafka. A filter is not inherited, so each of them gets it; safe to repeat."""
    for name in list(logging.Logger.manager.loggerDict):
        if name == "aiokafka" or name.startswith("aiokafka."):
            logger = logging.getLogger(name)
            logger.addFilter(_noise)
            if logger.level == logging.NOTSET and name == "aiokafka":
                logger.setLevel(logging.WARNING)


_OLD_NEWS: Final = ("no partition assignments", "Auto create topics is disabled")
"""What FastStream warns of and is meant to be so: a standby has no partition; topics come from the registry."""


def _is_news(record: logging.LogRecord) -> bool:
    return not any(text in str(record.msg) for text in _OLD_NEWS)


def framework_logger() -> logging.Logger:
    """The logger that FastStream is given."""
    logger = logging.getLogger("gpufleet.bus.faststream")
    if not logger.filters:
        logger.addFilter(_is_news)
    logger.setLevel(logging.WARNING)
    return logger
