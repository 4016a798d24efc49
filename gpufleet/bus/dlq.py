"""Dead letters: records that could not be read, with their origin and the error.

`<topic>.dlq` holds the original key, value and headers, and these headers: `dlq-reason`, `dlq-error`, `dlq-path`,
`dlq-origin` (topic/partition/offset), `dlq-attempts`, `dlq-first-seen`. A later record with the same origin and a
header `dlq-state` says what became of it (`replayed`, `dropped`): these topics are not compacted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Literal

import structlog

from gpufleet.bus.publisher import Failure, Publisher
from gpufleet.bus.records import Record, printable
from gpufleet.bus.topics import DLQ_SUFFIX, Registry
from gpufleet.wire.errors import RecordError

log = structlog.get_logger("gpufleet.bus")

REASON: Final = "dlq-reason"
ERROR: Final = "dlq-error"
PATH: Final = "dlq-path"
ORIGIN: Final = "dlq-origin"
ATTEMPTS: Final = "dlq-attempts"
FIRST_SEEN: Final = "dlq-first-seen"
STATE: Final = "dlq-state"
NO_KEY: Final = "dlq-no-key"
TRUNCATED: Final = "dlq-truncated"

State = Literal["open", "replayed", "dropped"]

_OWN: Final = (REASON, ERROR, PATH, ORIGIN, FIRST_SEEN, STATE, NO_KEY, TRUNCATED)
_KEEP_BYTES: Final = 900_000
_ERROR_CHARS: Final = 2000


class DeadLetterError(ValueError):
    """What was asked of a dead letter cannot be done. The text says what can."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be read. `key`, `value` and `headers` are the original ones; `first_seen` epoch seconds.

    `truncated`: the value was too large for another record and is cut off.
    """

    topic: str
    partition: int
    offset: int
    key: str | None
    value: bytes | None
    headers: dict[str, str]
    reason: str
    error: str
    path: str
    attempts: int
    first_seen: float
    state: State
    truncated: bool

    @property
    def origin(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


class DeadLetters:
    """Puts records on dead letter topics, once each, for the topics that `service` answers for in the registry.

    The service reads its dead letter topics like its tables (`topics`, `apply`), since compacted topics are read anew
    at each start and the same bad record is found again. Nothing is written before `open`, which is called when they
    are read, and only while `in_charge(partition of the origin)`; what waits is written by `write_pending`.
    """

    def __init__(
        self,
        publisher: Publisher,
        registry: Registry,
        service: str,
        *,
        in_charge: Callable[[int], bool],
        clock: Callable[[], float],
    ) -> None:
        self.rejected: dict[tuple[str, str], int] = {}  # (short topic, reason) → count, for the metric
        self._publisher = publisher
        self._registry = registry
        self._service = service
        self._in_charge = in_charge
        self._clock = clock
        self._seen: set[str] = set()
        self._pending: dict[str, tuple[Record, RecordError, float]] = {}
        self._sent: set[str] = set()
        self._opened = False

    @property
    def topics(self) -> list[str]:
        """The dead letter topics of this service, by their names on the broker."""
        return [topic.name + DLQ_SUFFIX for topic in self._registry if topic.dlq == self._service]

    @property
    def pending(self) -> int:
        """Dead letters that are not written yet."""
        return len(self._pending)

    def apply(self, records: Iterable[Record]) -> None:
        """Take note of records of the dead letter topics."""
        for record in records:
            origin = record.headers.get(ORIGIN)
            if origin:
                self._seen.add(origin)
                self._pending.pop(origin, None)
                self._sent.discard(origin)

    def reject(self, record: Record, error: RecordError) -> None:
        """A record of one of the service's tables cannot be read."""
        topic = self._registry[record.topic]
        count = (topic.short, str(error.reason))
        self.rejected[count] = self.rejected.get(count, 0) + 1
        if topic.dlq != self._service or record.origin in self._seen or record.origin in self._pending:
            return
        log.warning(
            "record.rejected",
            topic=record.topic,
            key=record.key,
            origin=record.origin,
            path=error.path,
            error=str(error),
        )
        self._pending[record.origin] = (record, error, self._clock())
        if self._opened:
            self._write(record.origin)

    def open(self) -> None:
        """The dead letter topics are read: from now on it is known what is new."""
        self._opened = True
        self.write_pending()

    def write_pending(self) -> None:
        """Write what waits, as far as this instance is in charge."""
        if self._opened:
            for origin in list(self._pending):
                self._write(origin)

    def on_failure(self, failure: Failure) -> None:
        """A dead letter was not acknowledged: it is written again by `write_pending`."""
        if failure.topic.endswith(DLQ_SUFFIX):
            self._sent.clear()

    def _write(self, origin: str) -> None:
        record, error, seen = self._pending[origin]
        if origin in self._sent or not self._in_charge(record.partition):
            return
        self._sent.add(origin)
        value, headers = record.value, dict(record.headers)
        if value is not None and len(value) > _KEEP_BYTES:
            headers[TRUNCATED] = str(len(value))
            value = value[:_KEEP_BYTES]
        if not record.key:
            headers[NO_KEY] = "true" if record.key is None else "empty"
        headers |= {
            REASON: str(error.reason),
            ERROR: printable(str(error))[:_ERROR_CHARS],
            PATH: error.path,
            ORIGIN: origin,
            ATTEMPTS: str(_attempts(record) + 1),
            FIRST_SEEN: datetime.fromtimestamp(seen, UTC).isoformat(timespec="milliseconds"),
        }
        self._publisher.send(
            self._registry.name(record.topic) + DLQ_SUFFIX,
            record.key or origin,
            value,
            headers=headers,
            guard=lambda _: self._in_charge(record.partition),
            plain=True,
        )


def fold(records: Iterable[Record]) -> list[DeadLetter]:
    """The dead letters in records of dead letter topics, in their order; each origin once, with its last state.

    Records that are no dead letters are passed over.
    """
    letters: dict[str, DeadLetter] = {}
    states: dict[str, State] = {}
    for record in records:
        origin = record.headers.get(ORIGIN, "")
        state = record.headers.get(STATE)
        if state in ("replayed", "dropped"):
            states[origin] = "replayed" if state == "replayed" else "dropped"
            continue
        if origin not in letters and (letter := _letter(record, origin)) is not None:
            letters[origin] = letter
    return [_with_state(letter, states.get(origin, "open")) for origin, letter in letters.items()]


def replay(publisher: Publisher, letter: DeadLetter, *, value: bytes | None = None, key: str | None = None) -> None:
    """Produce a dead letter to its origin topic again, as it was or with a repaired `value` or `key`, and note it.

    The publisher is to be flushed after it. Raises DeadLetterError where the record must be repaired first.
    """
    new_key = key or letter.key
    if not new_key:
        raise DeadLetterError(f"{letter.origin} has no key: give one, it is the identity of the record")
    if value is None and letter.truncated:
        raise DeadLetterError(f"{letter.origin} was too large to be kept whole: give the repaired value")
    headers = {name: text for name, text in letter.headers.items() if name != "correlation_id"}
    publisher.send(
        letter.topic,
        new_key,
        value if value is not None else letter.value,
        partition=letter.partition,
        headers={**headers, ATTEMPTS: str(letter.attempts)},
        plain=True,
    )
    _note(publisher, letter, "replayed")


def drop(publisher: Publisher, letter: DeadLetter) -> None:
    """Note that nothing more will be done about a dead letter. The publisher is to be flushed after it."""
    _note(publisher, letter, "dropped")


def _note(publisher: Publisher, letter: DeadLetter, state: State) -> None:
    publisher.send(
        letter.topic + DLQ_SUFFIX,
        letter.key or letter.origin,
        None,
        headers={ORIGIN: letter.origin, STATE: state},
        plain=True,
    )


def _letter(record: Record, origin: str) -> DeadLetter | None:
    parts = origin.rsplit("/", 2)
    if len(parts) != 3 or not parts[1].isdigit() or not parts[2].isdigit():
        return None
    headers = record.headers
    no_key = headers.get(NO_KEY)
    return DeadLetter(
        topic=parts[0],
        partition=int(parts[1]),
        offset=int(parts[2]),
        key=record.key if no_key is None else None if no_key == "true" else "",
        value=record.value,
        headers={name: text for name, text in headers.items() if name not in _OWN and name != ATTEMPTS},
        reason=headers.get(REASON, ""),
        error=headers.get(ERROR, ""),
        path=headers.get(PATH, ""),
        attempts=max(1, _attempts(record)),
        first_seen=_seconds(headers.get(FIRST_SEEN, ""), record.timestamp),
        state="open",
        truncated=TRUNCATED in headers,
    )


def _with_state(letter: DeadLetter, state: State) -> DeadLetter:
    return replace(letter, state=state)


def _attempts(record: Record) -> int:
    text = record.headers.get(ATTEMPTS, "0")
    return int(text) if text.isdigit() else 0


def _seconds(text: str, default: float) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return default
