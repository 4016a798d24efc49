"""Plain JSON values: copies, timestamps, names made from seeds, and the views of one object in several API versions."""

from __future__ import annotations

import calendar
import time
from hashlib import blake2b
from typing import Any

from sim.api.resources import Resource

Json = dict[str, Any]

# The alphabet of generated name suffixes: no vowels, no look-alikes, as upstream's utilrand.
_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def copy_json(value: Any) -> Any:
    """A deep copy of a JSON value."""
    if isinstance(value, dict):
        return {key: copy_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copy_json(item) for item in value]
    return value


def without_nulls(value: Any) -> Any:
    """The value without null fields: a null field is one that is not set. Shares nothing with the original."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


# Fields of builtin kinds that are maps of strings or quantities.
_PLAIN_MAPS = frozenset({"labels", "annotations", "nodeSelector", "matchLabels", "limits", "requests"})


def without_empty(value: Any) -> Any:
    """A value of a builtin kind without null fields, empty lists and empty plain maps, which Go leaves out too."""
    if isinstance(value, dict):
        result = {}
        for key, item in value.items():
            if item is None or item == [] or (item == {} and key in _PLAIN_MAPS):
                continue
            result[key] = without_empty(item) if isinstance(item, (dict, list)) else item
        return result
    if isinstance(value, list):
        return [without_empty(item) if isinstance(item, (dict, list)) else item for item in value]
    return value


def rfc3339(now: float) -> str:
    """Epoch seconds as `2026-01-31T12:00:00Z` (metav1.Time has whole seconds)."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))


def parse_rfc3339(text: str) -> float:
    """Epoch seconds of an RFC 3339 UTC time, with or without a fraction; ValueError if it is none."""
    whole, _, rest = text.partition(".")
    seconds = calendar.timegm(time.strptime(whole.rstrip("Z"), "%Y-%m-%dT%H:%M:%S"))
    return seconds + (float("0." + rest.rstrip("Z")) if rest else 0.0)


def make_uid(seed: str, counter: int) -> str:
    """A UUID (version 4 in form) that depends on seed and counter alone."""
    digest = bytearray(blake2b(f"{seed}/{counter}".encode(), digest_size=16).digest())
    digest[6] = digest[6] & 0x0F | 0x40
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def make_suffix(seed: str, counter: int, length: int = 5) -> str:
    """The random-looking end of a generated name."""
    digest = blake2b(f"{seed}/{counter}/name".encode(), digest_size=length).digest()
    return "".join(_SUFFIX_ALPHABET[byte % len(_SUFFIX_ALPHABET)] for byte in digest)


def as_served(resource: Resource, obj: Json) -> Json:
    """The stored object in the version of `resource`; the object itself where they are the same."""
    if obj["apiVersion"] == resource.api_version:
        return obj
    if resource.group == "events.k8s.io":
        return _event_from_core(resource, obj)
    return {**obj, "apiVersion": resource.api_version}


def as_stored(resource: Resource, obj: Json) -> Json:
    """The other way round: what is kept of an object that came in as `resource`."""
    if resource.group == "events.k8s.io":
        return _event_to_core(obj)
    return obj


_EVENT_TO_CORE = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedCount": "count",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
}
_EVENT_FROM_CORE = {core: new for new, core in _EVENT_TO_CORE.items()}


def _event_to_core(obj: Json) -> Json:
    return {**{_EVENT_TO_CORE.get(key, key): value for key, value in obj.items()}, "apiVersion": "v1"}


def _event_from_core(resource: Resource, obj: Json) -> Json:
    renamed = {_EVENT_FROM_CORE.get(key, key): value for key, value in obj.items()}
    return {**renamed, "apiVersion": resource.api_version}
