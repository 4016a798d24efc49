"""Whether a document can be written into a record: it is JSON, and not too large."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from gpufleet.wire.documents_schema import Findings, path_of
from gpufleet.wire.records_base import MAX_VALUE_BYTES


def writable(manifest: Mapping[str, Any], findings: Findings) -> bool:
    """Returns whether a document is JSON at all; one that is too large for a record is noted, but can be read."""
    try:
        text = json.dumps(manifest, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        wrong = list(_not_finite(manifest, ()))
        for path, number in wrong:
            findings.error(path, f"is {number}, which JSON does not have", "write a finite number, or a text in quotes")
        if not wrong:
            findings.error("", "cannot be written as JSON", "use only texts, finite numbers, lists and maps")
        return False
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_VALUE_BYTES and manifest.get("kind") != "Scenario":
        findings.error(
            "",
            f"has {-(-size // 1024)} KiB, more than the {MAX_VALUE_BYTES // 1024} KiB that a record may have",
            "keep large data out of the manifest: refer to it by ConfigMap, volume or URL",
        )
    return True


def _not_finite(value: Any, parts: tuple[str | int, ...]) -> Iterator[tuple[str, float]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield path_of(parts), value
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _not_finite(item, (*parts, key))
