"""Claims on `gpufleet.epochs`: who decides, in an order that the broker makes.

A claim is a record with the key of what is claimed (`scheduler`, or `inventory/3` for a shard). The epoch is the
claim's offset; of the claims with one key the last one counts. The key `log` holds a random id of this log:
another id is another fleet's history, or an emptied broker.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from gpufleet.bus.records import Record

LOG_KEY: Final = "log"
NONCE_HEADER: Final = "gpufleet-claim"
"""Tells two claims of one instance apart, for a claim whose offset the broker did not say."""


@dataclass(frozen=True, slots=True)
class Claim:
    """`instance` claims `key`; `nonce` tells two claims of one instance apart; `epoch` is the offset."""

    key: str
    instance: str
    epoch: int
    nonce: str = ""


def claim_key(service: str, shard: int | None = None) -> str:
    return service if shard is None else f"{service}/{shard}"


def encode_claim(service: str, shard: int | None, instance: str, time: float) -> bytes:
    """The value of a claim made at `time` (epoch seconds); the JSON of `gpufleet.v1.Claim`."""
    claimed_at = datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body: dict[str, Any] = {"claimedAt": claimed_at, "instance": instance, "service": service}
    if shard is not None:
        body["shard"] = shard
    return json.dumps(body, separators=(",", ":")).encode()


def encode_log_id(id_: str) -> bytes:
    """The value of the record with the key `log`."""
    return json.dumps({"logId": id_}, separators=(",", ":")).encode()


class EpochTable:
    """The fold of the epochs topic. `on_change` callbacks get the key that changed, after the table has it."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}
        self._log_id: str | None = None
        self._listeners: list[Callable[[str], None]] = []

    @property
    def log_id(self) -> str | None:
        """The id of this log; None while there is none."""
        return self._log_id

    def highest(self, key: str) -> Claim | None:
        """The claim that counts for `key`."""
        return self._claims.get(key)

    def epoch(self, key: str) -> int:
        """The epoch of `key`; -1 while nobody has claimed it."""
        claim = self._claims.get(key)
        return -1 if claim is None else claim.epoch

    def on_change(self, listener: Callable[[str], None]) -> None:
        self._listeners.append(listener)

    def apply(self, records: Sequence[Record]) -> None:
        """Fold records of the epochs topic, in offset order. What is no claim is passed over: it claims nothing."""
        for record in records:
            if record.key is None or record.value is None:
                continue
            body = _object(record.value)
            if body is None:
                continue
            if record.key == LOG_KEY:
                id_ = body.get("logId")
                # The first id stays: a second writer that came too late must not make this a new log.
                if self._log_id is None and isinstance(id_, str) and id_:
                    self._log_id = id_
                    self._tell(LOG_KEY)
                continue
            instance = body.get("instance")
            if not isinstance(instance, str) or not instance:
                continue
            known = self._claims.get(record.key)
            if known is None or record.offset > known.epoch:
                self._claims[record.key] = Claim(
                    record.key, instance, record.offset, record.headers.get(NONCE_HEADER, "")
                )
                self._tell(record.key)

    def _tell(self, key: str) -> None:
        for listener in self._listeners:
            listener(key)


def _object(value: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(value)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None
