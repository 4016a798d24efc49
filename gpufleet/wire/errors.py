"""What is wrong with a record that cannot be read."""

from __future__ import annotations

from enum import StrEnum


class RecordReason(StrEnum):
    """Why a record was refused: the `dlq-reason` header, and a label of metrics."""

    NOT_JSON = "NotJson"  # no JSON (nor, for a bare manifest, YAML), or cut off half-way
    TOO_LARGE = "TooLarge"
    UNSUPPORTED_VERSION = "UnsupportedVersion"  # of the contract, not of the workload
    UNKNOWN_TOPIC = "UnknownTopic"
    UNKNOWN_KIND = "UnknownKind"
    MISSING_KEY = "MissingKey"
    KEY_MISMATCH = "KeyMismatch"
    MISSING_FIELD = "MissingField"
    WRONG_TYPE = "WrongType"
    OUT_OF_RANGE = "OutOfRange"
    INVALID_VALUE = "InvalidValue"
    TOMBSTONE = "Tombstone"  # parsed although it has no value


class RecordError(ValueError):
    """A record that cannot be read. It goes to the dead letter topic and the next one is handled.

    `path` is the field in the value (`spec.replicas`, `free[0].nodes`), `key` or `headers.<name>`; empty where the
    record as a whole is meant. `hint` says what would be right.
    """

    def __init__(self, reason: RecordReason | str, path: str, message: str, hint: str = "") -> None:
        self.reason = RecordReason(reason)
        self.path = path
        self.message = message
        self.hint = hint
        super().__init__(reason, path, message, hint)

    def __str__(self) -> str:
        """One line: where, what is wrong, what would be right."""
        where = f"{self.path}: " if self.path else ""
        return f"{where}{self.message}" + (f"; {self.hint}" if self.hint else "")
