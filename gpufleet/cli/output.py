"""How results are shown: tables for people, documents for programs. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any


class Format(StrEnum):
    """`-o`"""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


def out(text: str = "") -> None:
    """Writes a line of the result."""
    print(text)  # noqa: T201


def note(text: str) -> None:
    """Writes a line that is not part of the result: progress, warnings, errors."""
    print(text, file=sys.stderr)  # noqa: T201


def interactive() -> bool:
    """Whether a person looks at the result."""
    return sys.stdout.isatty()


@contextmanager
def progress(text: str) -> Iterator[Callable[[str], None]]:
    """A line that moves while a person waits; the given function changes its text. Nothing where nobody looks."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status(text) as status:
        yield status.update


def show_json(value: Any) -> None:
    """Writes one JSON document."""
    out(json.dumps(value, indent=2 if interactive() else None, ensure_ascii=False))


def show_documents(documents: Sequence[Mapping[str, Any]], format_: Format) -> None:
    """Writes documents as a JSON List, or as YAML documents; both are read by `-f`."""
    if format_ is Format.JSON:
        show_json({"apiVersion": "v1", "kind": "List", "items": list(documents)})
        return
    from gpufleet.wire.yaml import dump

    out(dump(list(documents)).rstrip("\n"))


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes columns as kubectl does: headers in capitals, three spaces between, nothing drawn."""
    lines = [[str(h).upper() for h in headers], *([_cell(c) for c in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headers))]
    for line in lines:
        out("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def age(seconds: float) -> str:
    """Returns a duration as kubectl shows ages: 45s, 12m, 5h, 3d."""
    seconds = max(0.0, seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def _cell(value: object) -> str:
    return "" if value is None else str(value)
