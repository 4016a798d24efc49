"""What is wrong with documents, and what is odd about them; both name the place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence about a place in a document. ``document`` and ``line`` count from 1; 0 where there is none."""

    source: str
    document: int
    line: int
    path: str
    message: str
    hint: str = ""

    @property
    def place(self) -> str:
        """``fleet.yaml, document 2, line 14``."""
        parts = [self.source or "input"]
        if self.document:
            parts.append(f"document {self.document}")
        if self.line:
            parts.append(f"line {self.line}")
        return ", ".join(parts)

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.place}: {where}{self.message}{hint}"


class DocumentWarning(Note):
    """Something that is accepted, but is probably not meant."""

    __slots__ = ()


class DocumentError(Note):
    """Something that cannot be accepted; `DocumentErrors` raises all of them together."""

    __slots__ = ()


class DocumentErrors(ValueError):
    """Every problem of the documents that were read, in their order, and what else was odd about them.

    ``unknown_kinds``: some are of kinds that are not known here, and may be known where more kinds are declared.
    """

    def __init__(
        self,
        errors: Iterable[DocumentError],
        warnings: Iterable[DocumentWarning] = (),
        *,
        unknown_kinds: bool = False,
    ) -> None:
        self.errors = tuple(errors)
        self.warnings = tuple(warnings)
        self.unknown_kinds = unknown_kinds
        super().__init__("\n".join(str(error) for error in self.errors))
