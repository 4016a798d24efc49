"""What every record shares: the base of the pydantic models, JSON in and out, and errors that name the field.

Reading goes through pydantic models, which hold exactly the fields of the `.proto` messages (a test compares them).
Unknown fields are ignored, so that an older reader takes what a newer writer says. Writing builds plain objects
without defaults, as the proto3 JSON mapping does, with sorted keys: the same value has the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol, TypeVar

import msgspec
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticCustomError

from gpufleet.model import quantity
from gpufleet.model.manifest import PackedManifest
from gpufleet.model.resources import Resources
from gpufleet.wire.errors import RecordError, RecordReason

PACKAGE: Final = "gpufleet.v1"
# What outsiders write may have this size; what services derive from it may be larger, below Kafka's own limit.
MAX_VALUE_BYTES: Final = 512 * 1024
MAX_DERIVED_BYTES: Final = 1000 * 1000
INT32_MAX: Final = 2**31 - 1
EXACT_MAX: Final = 2**53
_MAJOR = re.compile(r"gpufleet[./]v(\d+)(?![0-9A-Za-z])")
_ESCAPE: Final = "surrogateescape"


class RecordLike(Protocol):
    """What is read of a record; `gpufleet.bus.records.Record` is one."""

    @property
    def topic(self) -> str:
        """The topic it was read from."""

    @property
    def offset(self) -> int:
        """Its offset in its partition."""

    @property
    def key(self) -> str | None:
        """The Kafka key as text; None: the producer gave none."""

    @property
    def value(self) -> bytes | None:
        """The Kafka value; None: a tombstone."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers as text."""


class Wire(BaseModel):
    """A message as it is read: lowerCamel names, strict types, unknown fields ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="ignore",
        strict=True,
        allow_inf_nan=False,
        defer_build=True,
    )


# --- Field types ------------------------------------------------------------------------------------------------


def parse_time(text: str) -> float:
    """Returns epoch seconds of an RFC 3339 time, exact to the nanosecond. Raises ValueError."""
    head, dot, tail = text.partition(".")
    try:
        if dot and tail[-1:] == "Z" and len(tail) > 4 and tail[:-1].isascii() and tail[:-1].isdigit():
            whole = datetime.fromisoformat(head + "Z").timestamp()
            return float(f"{whole:.0f}.{tail[:-1]}") if whole >= 0 else whole + float(f"0.{tail[:-1]}")
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a time") from None
    if moment.tzinfo is None or "T" not in text:
        raise ValueError(f"{text!r} has no time zone" if "T" in text else f"{text!r} is not a time")
    return moment.timestamp()


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def render_time(seconds: float) -> str:
    """Returns an RFC 3339 time in UTC with 0, 3, 6 or 9 digits of fraction; `parse_time` gives the same number back.

    Numbers finer than a nanosecond are cut off there. Raises RecordError beyond the years 1 to 9999.
    """
    text = repr(float(seconds))  # the shortest text that means the same number
    number, _, digits = text.partition(".")
    try:
        if len(digits) > 9 or not digits.isdecimal():
            number, _, digits = f"{seconds:.9f}".partition(".")
        whole = int(number)
        if seconds < 0 and digits.strip("0"):
            whole, digits = whole - 1, f"{10**9 - int(digits.ljust(9, '0')):09d}"
        text = (_EPOCH + timedelta(seconds=whole)).isoformat()[:19]
    except (OverflowError, ValueError):
        raise RecordError(RecordReason.OUT_OF_RANGE, "", f"{seconds} is no time in seconds since 1970") from None
    digits = digits.rstrip("0")
    digits += "0" * (-len(digits) % 3)
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def _time(value: object) -> object:
    if isinstance(value, str):
        try:
            return parse_time(value)
        except ValueError as error:
            raise PydanticCustomError("time", "{error}", {"error": str(error)}) from None
    raise PydanticCustomError("time_type", "must be a time as text")


def _amounts(value: dict[str, str]) -> Resources:
    amounts = []
    for name, text in value.items():
        try:
            amount = quantity.parse(text, name, round_up=False)
        except quantity.QuantityError as error:
            raise PydanticCustomError("quantity", "{name}: {error}", {"name": name, "error": str(error)}) from None
        if amount:
            amounts.append((name, amount))
    amounts.sort()
    return tuple(amounts)


def _pairs(value: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(value.items()))


def _major(value: str) -> str:
    if value not in ("", "v1"):
        raise PydanticCustomError("unsupported_version", "{value} is not supported", {"value": repr(value)})
    return value


class WireType:
    """Marks a field whose type in the message cannot be read off its Python type."""

    def __init__(self, name: str, *, quantities: bool = False) -> None:
        self.name = name
        self.quantities = quantities


Count = Annotated[int, Field(ge=0, le=INT32_MAX)]
Int32 = Annotated[int, Field(ge=-INT32_MAX - 1, le=INT32_MAX)]
Text = Annotated[str, Field(min_length=1)]
# Validators turn what is on the wire into the domain's values, so the attributes of a model have the latter's types.
if TYPE_CHECKING:
    Time = float
    Amounts = Resources
    Pairs = tuple[tuple[str, str], ...]
    Counts = tuple[tuple[str, int], ...]
    Offset = float
    SchemaVersion = str
    Struct = dict[str, Any]
else:
    # Epoch seconds; RFC 3339 text on the wire.
    Time = Annotated[float, BeforeValidator(_time), WireType("google.protobuf.Timestamp")]
    # What is there is rounded down.
    Amounts = Annotated[dict[str, str], AfterValidator(_amounts), WireType("map<string, string>", quantities=True)]
    Pairs = Annotated[dict[str, str], AfterValidator(_pairs)]
    Counts = Annotated[dict[str, Count], AfterValidator(_pairs)]
    # A whole number that may exceed 32 bits: a double on the wire, exact up to 2**53.
    Offset = Annotated[float, Field(ge=0, le=EXACT_MAX, multiple_of=1)]
    SchemaVersion = Annotated[str, AfterValidator(_major)]
    Struct = Annotated[dict[str, Any], WireType("google.protobuf.Struct")]


# --- Reading ----------------------------------------------------------------------------------------------------

W = TypeVar("W", bound=Wire)


def value_of(record: RecordLike, message: str, limit: int = MAX_DERIVED_BYTES) -> bytes:
    """Returns the value after the checks that need no parsing: not a tombstone, size, version of the contract, key."""
    value = record.value
    if value is None:
        raise RecordError(RecordReason.TOMBSTONE, "", "the record is a tombstone; it deletes its key and has no value")
    check_key_present(record)
    check_size(len(value), limit)
    headers = record.headers
    event_type = headers.get("ce_type")
    if event_type is not None and event_type != f"{PACKAGE}.{message}":
        check_major(event_type, "headers.ce_type")
        if event_type.startswith(f"{PACKAGE}."):
            raise RecordError(
                RecordReason.INVALID_VALUE,
                "headers.ce_type",
                f"{event_type} does not belong on the topic {record.topic}",
                f"expected {PACKAGE}.{message}",
            )
    if "ce_dataschema" in headers:
        check_major(headers["ce_dataschema"], "headers.ce_dataschema")
    return value


def check_major(text: str, path: str) -> None:
    """Raises RecordError where a type, schema or apiVersion of gpufleet names another major version than 1."""
    match = _MAJOR.search(text)
    if match and match.group(1) != "1":
        raise RecordError(
            RecordReason.UNSUPPORTED_VERSION,
            path,
            f"version {match.group(1)} of the contract is not supported",
            f"write {PACKAGE} messages, or upgrade this service first",
        )


def check_size(size: int, limit: int) -> None:
    """Raises RecordError for a value above the limit (bytes)."""
    if size > limit:
        raise RecordError(
            RecordReason.TOO_LARGE,
            "",
            f"the value has {size} bytes, more than {limit}",
            "keep large data out of the manifest: refer to it by ConfigMap, volume or URL",
        )


def check_key_present(record: RecordLike) -> str:
    """Returns the key. Raises RecordError where there is none."""
    if not record.key:
        raise RecordError(
            RecordReason.MISSING_KEY,
            "key",
            "the record has no key",
            "set the Kafka key to the record's identity, such as namespace/Kind/name for a workload",
        )
    return record.key


def check_key(record: RecordLike, expected: str) -> None:
    """Raises RecordError where the key is not the identity that the value states."""
    if record.key != expected:
        shown = check_key_present(record).encode("utf-8", _ESCAPE).decode("utf-8", "backslashreplace")
        raise RecordError(
            RecordReason.KEY_MISMATCH,
            "key",
            f"the key {shown!r} is not the identity of the value",
            f"set the Kafka key to {expected!r}",
        )


def read_json(model: type[W], value: bytes) -> W:
    """Returns the message in JSON bytes. Raises RecordError for the first thing that is wrong."""
    if b"NaN" in value or b"Infinity" in value:
        decode(value)  # pydantic takes these words for numbers; JSON has no such numbers
    try:
        return model.model_validate_json(value)
    except ValidationError as error:
        nulls = [e["loc"] for e in error.errors(include_url=False, include_context=False) if e["input"] is None]
        if nulls and not _is_not_json(error):
            return _read_object(model, decode(value), nulls)
        raise _translate(error) from None


def read_object(model: type[W], value: Mapping[str, Any]) -> W:
    """Returns the message in a decoded object. Raises RecordError."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        nulls = [e["loc"] for e in error.errors(include_url=False, include_context=False) if e["input"] is None]
        if nulls:
            return _read_object(model, value, nulls)
        raise _translate(error) from None


def decode(value: bytes) -> Any:
    """Returns what JSON bytes say. Raises RecordError."""
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise not_json(str(error)) from None
    except RecursionError:
        raise not_json("nested too deeply") from None


def not_json(detail: str) -> RecordError:
    """Returns the error for bytes that are no JSON."""
    return RecordError(
        RecordReason.NOT_JSON, "", f"the value is not JSON: {detail}", "write one whole JSON object, encoded in UTF-8"
    )


def _read_object(model: type[W], value: Mapping[str, Any], nulls: Iterable[tuple[int | str, ...]]) -> W:
    """Reads again without the nulls of typed fields: the proto3 JSON mapping takes null for a field left out."""
    text = msgspec.json.encode(value)
    copy = msgspec.json.decode(text)
    for path in nulls:
        parent: Any = copy
        for part in path[:-1]:
            parent = parent[part]
        if isinstance(parent, dict):
            parent.pop(path[-1], None)
    try:
        return model.model_validate_json(msgspec.json.encode(copy))
    except ValidationError as error:
        raise _translate(error) from None


def _is_not_json(error: ValidationError) -> bool:
    return error.errors(include_url=False)[0]["type"] == "json_invalid"


_RANGES = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of", "finite_number")
_TYPE_NAMES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}


def _translate(error: ValidationError) -> RecordError:
    """Returns the first problem of a validation, in gpufleet's words."""
    problems = error.errors(include_url=False)
    problem = problems[0]
    kind = problem["type"]
    if kind == "json_invalid":
        return not_json(str(problem.get("ctx", {}).get("error", "")) or problem["msg"])
    reason, message, hint = _explain(problem, kind)
    if len(problems) > 1:
        message += f" (and {len(problems) - 1} more)"
    return RecordError(reason, path_of(problem["loc"]), message, hint)


def _explain(problem: ErrorDetails, kind: str) -> tuple[RecordReason, str, str]:
    context = problem.get("ctx", {})
    shown = repr(problem["input"])
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    if kind == "missing":
        return RecordReason.MISSING_FIELD, "the field is missing", ""
    if kind == "string_too_short":
        return RecordReason.MISSING_FIELD, "the field is empty", ""
    if kind in _TYPE_NAMES:
        return RecordReason.WRONG_TYPE, f"{shown} has the wrong type", f"expected {_TYPE_NAMES[kind]}"
    if kind in ("time", "time_type"):
        reason = RecordReason.INVALID_VALUE if kind == "time" else RecordReason.WRONG_TYPE
        message = problem["msg"] if kind == "time" else f"{shown} has the wrong type"
        return reason, message, "write a time as 2026-01-31T12:00:00Z"
    if kind == "quantity":
        message, _, hint = problem["msg"].partition("; ")
        return RecordReason.INVALID_VALUE, message, hint
    if kind == "unsupported_version":
        return RecordReason.UNSUPPORTED_VERSION, f"version {problem['msg']}", "write v1, or leave the field out"
    if kind == "enum":
        return RecordReason.INVALID_VALUE, f"{shown} is not known", f"expected {context.get('expected', '')}"
    if kind in _RANGES:
        hint = problem["msg"].replace("Input should", "it should")
        return RecordReason.OUT_OF_RANGE, f"{shown} is out of range", hint
    return RecordReason.INVALID_VALUE, f"{shown}: {problem['msg']}", ""


def path_of(parts: Iterable[int | str]) -> str:
    """Returns ``a.b[0]`` for the parts of a path; keys with dots are put in brackets."""
    path = ""
    for part in parts:
        if isinstance(part, int) or not part.replace("-", "").replace("_", "").isalnum():
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path


def below(prefix: str, path: str) -> str:
    """Returns a path below another one."""
    if not prefix or not path:
        return prefix or path
    return f"{prefix}{path}" if path.startswith("[") else f"{prefix}.{path}"


# --- Writing ----------------------------------------------------------------------------------------------------


def _plain(value: object) -> msgspec.Raw:
    if isinstance(value, PackedManifest):
        return msgspec.Raw(value.json)
    raise TypeError(f"{type(value).__name__} is no JSON")


_ENCODER = msgspec.json.Encoder(order="sorted", enc_hook=_plain)


def encode(value: Mapping[str, Any], limit: int = MAX_DERIVED_BYTES) -> bytes:
    """Returns compact JSON with sorted keys. Raises RecordError above the limit or for what JSON cannot say."""
    try:
        data = _ENCODER.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise RecordError(RecordReason.WRONG_TYPE, "", f"the value cannot be written as JSON: {error}") from None
    check_size(len(data), limit)
    return data


def compact(value: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields that are set: empty text, 0, false and empty collections are what a reader assumes."""
    return dict(filter(itemgetter(1), value.items()))


def time_or_none(seconds: float | None) -> str | None:
    """Returns RFC 3339, or None for a time that is not known (None or 0)."""
    return _rendered(seconds) if seconds else None


@lru_cache(maxsize=16)
def _rendered(seconds: float) -> str:
    """As `render_time`: the records of one decision all say when it was made."""
    return render_time(seconds)
