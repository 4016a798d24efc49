"""Names of clusters in policies that no cluster has: as a rule they are misspelt."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gpufleet.wire.documents_errors import DocumentWarning
from gpufleet.wire.documents_schema import nearest, path_of

if TYPE_CHECKING:
    from gpufleet.wire.documents import Parsed

_LISTS = ("clusterNames", "clusterIds", "exclude")
_NAMED = 3


def lint_clusters(parsed: Parsed, known: Collection[str]) -> list[DocumentWarning]:
    """Returns where policies among the documents name clusters that are not among ``known``; nothing if none is."""
    names = sorted(known)
    warnings = []
    for key in sorted({*parsed.policies, *parsed.overrides}) if names else ():
        document = parsed.document_of(key)
        for path, listed in _named(document.manifest.get("spec"), ("spec",)) if document is not None else ():
            unknown = [name for name in listed if name not in known]
            if unknown and document is not None:
                warnings.append(document.warning(path, _message(unknown), _hint(unknown, names)))
    return warnings


def _message(unknown: list[str]) -> str:
    told = ", ".join(map(repr, unknown[:_NAMED]))
    more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
    return f"no cluster is called {told}{more}"


def _hint(unknown: list[str], names: list[str]) -> str:
    near = dict.fromkeys(name for name in (nearest(item, names) for item in unknown[:_NAMED]) if name)
    return f"did you mean {' and '.join(near)}?" if near else ""


def _named(value: Any, parts: tuple[str | int, ...]) -> Iterator[tuple[str, list[str]]]:
    """Yields the lists of cluster names in a policy, each with its path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in _LISTS and isinstance(item, list | tuple):
                yield path_of((*parts, key)), [name for name in item if isinstance(name, str)]
            else:
                yield from _named(item, (*parts, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _named(item, (*parts, index))
