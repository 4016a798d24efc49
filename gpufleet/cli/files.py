"""Documents from `-f`: files, folders, or `-` for standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from gpufleet.cli.errors import CliError
from gpufleet.cli.output import note
from gpufleet.wire import yaml
from gpufleet.wire.documents import DocumentErrors, Parsed, parse_documents
from gpufleet.wire.yaml import Document

_ENDINGS = (".yaml", ".yml", ".json")


class UnknownKinds(CliError):
    """Some documents are of kinds that are not known here, but may be declared on the fleet."""


def read(paths: Sequence[str], *, namespace: str = "default") -> Parsed:
    """Returns what the documents say, with warnings on stderr. Raises CliError with every problem."""
    return parse(load(paths), namespace=namespace)


def load(paths: Sequence[str]) -> list[Document]:
    """Returns the documents. Raises CliError where there are none."""
    documents = [document for path in paths for document in load_documents(path)]
    if not documents:
        raise CliError(f"no documents in {', '.join(paths)}: write at least one")
    return documents


def parse(documents: Sequence[Document], *, namespace: str = "default") -> Parsed:
    """Returns what documents say, with warnings on stderr. Raises CliError (or UnknownKinds) with every problem."""
    try:
        parsed = parse_documents(documents, namespace=namespace)
    except DocumentErrors as error:
        _warn(map(str, error.warnings))
        raise (UnknownKinds if error.unknown_kinds else CliError)(str(error)) from error
    _warn(map(str, parsed.warnings))
    return parsed


def load_documents(path: str) -> list[Document]:
    """Returns the documents of a file, of a folder's files in order of their names, or of standard input."""
    if path == "-":
        return yaml.load(sys.stdin.buffer.read(), "-")
    found = Path(path)
    files = sorted(f for f in found.iterdir() if f.suffix in _ENDINGS) if found.is_dir() else [found]
    documents: list[Document] = []
    for file in files:
        try:
            documents += yaml.load(file.read_bytes(), str(file))
        except OSError as error:
            raise CliError(f"{file}: {error.strerror or error}") from error
    return documents


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        note(f"warning: {warning}")
