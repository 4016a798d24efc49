"""Multi-document YAML and JSON as Kubernetes reads it, with the places of fields for messages.

YAML 1.1 as kubectl has it (`yes` and `on` are true, 0644 is octal), but a date is a text, and 12:30 is no number.
A key that occurs twice is an error. Text is cut at the document markers first, so that a document that does not
parse hides no other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.resolver import BaseResolver

from gpufleet.wire.documents_errors import DocumentError, DocumentErrors, DocumentWarning

# More values in one document than any manifest has: aliases of aliases can stand for billions.
MAX_VALUES = 1_000_000
# libyaml's where it is there: ten times as fast.
_PLAIN_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 100
_PREFIX = "tag:yaml.org,2002:"
_COLLECTIONS = (_PREFIX + "map", _PREFIX + "seq")
_MARKER = re.compile(r"^(?:---|\.\.\.)(?=[ \t]|$)", re.MULTILINE)
_PATH = re.compile(r"([^.\[\]]+)|\[([^\]]*)\]")


class _Resolver(BaseResolver):
    """Which plain scalars are no text."""


for _tag, _pattern, _first in (
    ("bool", r"^(?:[yY]es|YES|[nN]o|NO|[tT]rue|TRUE|[fF]alse|FALSE|[oO]n|ON|[oO]ff|OFF)$", "yYnNtTfFoO"),
    ("int", r"^[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+0123456789."),
    ("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+."),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("merge", r"^<<$", "<"),
):
    _Resolver.add_implicit_resolver(_PREFIX + _tag, re.compile(_pattern), list(_first))

try:
    from yaml.cyaml import CParser  # type: ignore[attr-defined]

    class _Loader(CParser, _Resolver):
        """libyaml's parser."""

        def __init__(self, text: str) -> None:
            CParser.__init__(self, text)
            _Resolver.__init__(self)

except ImportError:  # pragma: no cover - wheels of PyYAML have libyaml
    from yaml.composer import Composer
    from yaml.parser import Parser
    from yaml.reader import Reader
    from yaml.scanner import Scanner

    class _Loader(Reader, Scanner, Parser, Composer, _Resolver):  # type: ignore[no-redef]
        """The same in Python."""

        def __init__(self, text: str) -> None:
            Reader.__init__(self, text)
            Scanner.__init__(self)
            Parser.__init__(self)
            Composer.__init__(self)
            _Resolver.__init__(self)


def plain(text: str | bytes) -> Any:
    """Returns the value of one document by the rules of YAML 1.1 alone, for files that are no documents of users.

    Raises yaml.YAMLError.
    """
    return yaml.load(text, Loader=_PLAIN_LOADER)  # a safe loader


@dataclass(frozen=True, slots=True)
class Document:
    """One document: where it came from, and what it says.

    ``source`` is a file name or ``-``; ``index`` counts the documents of the source from 1; ``line`` is where it
    starts. ``errors`` says why it could not be read; ``manifest`` is then empty.
    """

    source: str
    index: int
    line: int
    manifest: Mapping[str, Any]
    text: str = ""
    prefix: str = ""  # the path of this object in its document, for an item of a List
    errors: tuple[DocumentError, ...] = ()

    def error(self, path: str, message: str, hint: str = "") -> DocumentError:
        """Returns an error about a field of this document."""
        return DocumentError(self.source, self.index, self.line_of(path), _below(self.prefix, path), message, hint)

    def warning(self, path: str, message: str, hint: str = "") -> DocumentWarning:
        """Returns a warning about a field of this document."""
        return DocumentWarning(self.source, self.index, self.line_of(path), _below(self.prefix, path), message, hint)

    def line_of(self, path: str) -> int:
        """Returns the line of a field, or of the nearest map that would hold it.

        The text is parsed again for this, because only messages need it.
        """
        if not self.text:
            return self.line
        try:
            node = _node(self.text)
        except yaml.YAMLError:
            return self.line
        here, mark = node, None
        for name, index in _PATH.findall(_below(self.prefix, path)):
            found = _member(here, name or index)
            if found is None:
                break
            mark, here = found
        return self.line + (mark.start_mark.line if mark else _first_line(node))


@lru_cache(maxsize=1)  # a document with several messages, or the steps of a scenario
def _node(text: str) -> Node | None:
    return _Loader(text).get_single_node()


def load(text: str | bytes, source: str = "-") -> list[Document]:
    """Returns the documents of a text; empty ones are left out. One that cannot be read carries its errors."""
    if isinstance(text, bytes):
        try:
            decoded = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = text.count(b"\n", 0, error.start) + 1
            return [_refused(source, 1, line, f"byte {error.start} is not UTF-8", "save the file as UTF-8")]
        return load(decoded, source)
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if text.lstrip()[:1] in ("{", "["):
        documents = _load_json(text, source)
        if documents is not None:
            return documents
    return list(_load_yaml(text, source))


def load_strict(text: str | bytes, source: str = "-") -> list[Document]:
    """Returns the documents of a text. Raises DocumentErrors where one cannot be read."""
    documents = load(text, source)
    if errors := [error for document in documents for error in document.errors]:
        raise DocumentErrors(errors)
    return documents


def dump(manifests: Iterable[Mapping[str, Any]]) -> str:
    """Returns documents as YAML, in their own order of keys."""
    return yaml.dump_all(
        [dict(m) for m in manifests], Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=120
    )


_SafeDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_SafeDumper):  # type: ignore[misc]
    """Quotes what would not come back as a text, and never writes aliases."""

    def ignore_aliases(self, _: object) -> bool:
        return True


# --- YAML ---------------------------------------------------------------------------------------------------------


def _load_yaml(text: str, source: str) -> Iterator[Document]:
    index = 0
    for line, chunk in _chunks(text):
        try:
            loader = _Loader(chunk)
            node = loader.get_single_node()
        except (yaml.YAMLError, UnicodeError) as error:
            index += 1
            yield _unreadable(source, index, line, chunk, error)
            continue
        except RecursionError:
            index += 1
            yield _refused(source, index, line, "is nested too deeply")
            continue
        if node is None or node.tag == _PREFIX + "null":
            continue
        index += 1
        builder = _Builder(source, index, line)
        manifest = builder.build(node, 0)
        start = line + _first_line(node)
        if not builder.errors and not isinstance(manifest, dict):
            builder.fail(node, "is not a map", "a document starts with apiVersion and kind")
        if builder.errors:
            yield Document(source, index, start, {}, errors=tuple(builder.errors))
        else:
            yield Document(source, index, line, manifest, chunk)


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    """Yields the line (from 1) and text of each document. A marker at the start of a line cannot be anything else."""
    starts = [0, *(match.start() for match in _MARKER.finditer(text)), len(text)]
    line = 1
    for start, end in pairwise(starts):
        chunk = text[start:end]
        if not chunk.startswith("...") and chunk.strip(" \t\n-"):
            yield line, chunk
        line += chunk.count("\n")


def _unreadable(source: str, index: int, line: int, chunk: str, error: Exception) -> Document:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = line + (mark.line if mark else 0)
    parts = [getattr(error, "context", None), getattr(error, "problem", None)]
    detail = ", ".join(part for part in parts if part) or str(error).splitlines()[0]
    hint = "check the indentation and the quotes there"
    if mark and chunk.splitlines()[mark.line : mark.line + 1] and "\t" in chunk.splitlines()[mark.line]:
        hint = "indent with spaces instead of tabs"
    return _refused(source, index, where, f"is not YAML: {detail}", hint)


def _refused(source: str, index: int, line: int, message: str, hint: str = "") -> Document:
    return Document(source, index, line, {}, errors=(DocumentError(source, index, line, "", message, hint),))


class _Builder:
    """Turns nodes into plain values; every alias becomes a copy of its own."""

    def __init__(self, source: str, index: int, line: int) -> None:
        self._place = (source, index)
        self._line = line
        self._left = MAX_VALUES
        self._stopped = False
        self.errors: list[DocumentError] = []

    def fail(self, node: Node, message: str, hint: str = "") -> None:
        source, index = self._place
        line = self._line + node.start_mark.line
        self.errors.append(DocumentError(source, index, line, "", message, hint))

    def build(self, node: Node, depth: int) -> Any:
        self._left -= 1
        if self._left < 0 or depth > _MAX_DEPTH:
            if not self._stopped:
                self.fail(node, "is too large or nested too deeply", "check its anchors and aliases")
            self._stopped = True
            return None
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if node.tag not in _COLLECTIONS:
            self.fail(node, f"the tag {node.tag} is not supported", "leave it out")
            return None
        if isinstance(node, SequenceNode):
            return [self.build(item, depth + 1) for item in node.value if not self._stopped]
        return self._mapping(node, depth)

    def _mapping(self, node: Node, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        merged: list[Node] = []
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if self._stopped:
                break
            if not isinstance(key_node, ScalarNode):
                self.fail(key_node, "a key must be a text")
                continue
            if key_node.tag == _PREFIX + "merge":
                merged.extend(value_node.value if isinstance(value_node, SequenceNode) else [value_node])
                continue
            key = key_node.value
            line = self._line + key_node.start_mark.line
            if key in lines:
                self.fail(key_node, f"the key {key!r} is already on line {lines[key]}", "keep one of them")
                continue
            lines[key] = line
            mapping[key] = self.build(value_node, depth + 1)
        for other in merged:
            if isinstance(other, MappingNode):
                mapping = {**self._mapping(other, depth + 1), **mapping}
                self._left -= len(mapping)
            else:
                self.fail(other, "only a map can be merged with <<")
        return mapping

    def _scalar(self, node: ScalarNode) -> Any:
        tag, value = node.tag, node.value
        if tag == _PREFIX + "str":
            return value
        try:
            match tag.removeprefix(_PREFIX):
                case "null":
                    return None
                case "bool":
                    return value.lower() in ("true", "yes", "on")
                case "int":
                    return _integer(value)
                case "float":
                    return float(value.replace(".inf", "inf").replace(".nan", "nan").lower())
        except ValueError:
            self.fail(node, f"{value[:40]!r} is not a number", "put it in quotes if it is a text")
            return None
        self.fail(node, f"the tag {tag} is not supported", "leave it out")
        return None


def _integer(text: str) -> int:
    digits = text.replace("_", "")
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    if digits[:2] in ("0b", "0x", "0o"):
        return sign * int(digits, 0)
    return sign * int(digits, 8 if len(digits) > 1 and digits[0] == "0" else 10)


def _first_line(node: Node | None) -> int:
    return int(node.start_mark.line) if node is not None else 0


def _member(node: Node | None, name: str) -> tuple[Node, Node] | None:
    """Returns the node that marks a member (its key, or the list item itself), and its value."""
    if isinstance(node, MappingNode):
        return next(((key, value) for key, value in node.value if key.value == name), None)
    if isinstance(node, SequenceNode) and name.isdecimal() and int(name) < len(node.value):
        return node.value[int(name)], node.value[int(name)]
    return None


def _below(prefix: str, path: str) -> str:
    if not prefix or not path:
        return prefix or path
    return f"{prefix}{path}" if path.startswith("[") else f"{prefix}.{path}"


# --- JSON ---------------------------------------------------------------------------------------------------------


class _DuplicateKey(ValueError):
    pass


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKey(key)
            seen.add(key)
    return mapping


def _load_json(text: str, source: str) -> list[Document] | None:
    """Returns the documents of a text of JSON objects one after another, or None where it is none of that."""
    decoder = json.JSONDecoder(object_pairs_hook=_pairs)
    documents: list[Document] = []
    position, line = 0, 1
    while True:
        stripped = len(text) - len(text[position:].lstrip()) if text[position:] else len(text)
        line += text.count("\n", position, stripped)
        position = stripped
        if position >= len(text):
            return documents
        index = len(documents) + 1
        try:
            value, end = decoder.raw_decode(text, position)
        except _DuplicateKey as error:
            message = f"the key {error.args[0]!r} occurs twice in one object"
            return [*documents, _refused(source, index, line, message, "keep one of them")]
        except RecursionError:
            return [*documents, _refused(source, index, line, "is nested too deeply")]
        except ValueError:
            return None
        chunk = text[position:end]
        if isinstance(value, dict):
            documents.append(Document(source, index, line, value, chunk))
        else:
            documents.append(
                _refused(source, index, line, "is not a map", "a document starts with apiVersion and kind")
            )
        line += chunk.count("\n")
        position = end
