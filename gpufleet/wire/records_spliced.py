"""The two records of a decision, laid by hand where that pays: what many of them have in common is encoded once.

The clusters of a decision get assignments that differ in little but the cluster, and the same shares come again and
again in placements. A test holds the bytes to those of the plain way, `encode(assignment_object(…))`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from itertools import repeat
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from gpufleet.model.placement import Assignment, AssignmentColumns, ClusterShare, Placement, Slot
from gpufleet.model.reasons import Reason
from gpufleet.wire.records_base import MAX_DERIVED_BYTES, check_size, encode
from gpufleet.wire.records_decisions import assignment_object, placement_object, reason_object, slots_array

_KNOWN: Final = 65_536
# What differs among the assignments of a decision; and what is compared by identity, because values that are equal in
# Python (1 and true) are not in JSON.
_OWN: Final = ("cluster", "components", "incarnation")
_SAME: Final = ("manifest", "patches", "overrides")

_HERE: Final = "-"

V = TypeVar("V")


class _Fragments(Generic[V]):
    """JSON of values that come again, by identity; the values are kept, so an identity means one value."""

    def __init__(self, render: Callable[[V], bytes], most: int = _KNOWN) -> None:
        self._render = render
        self._most = most
        self._known: dict[int, bytes] = {}
        self._kept: list[V] = []

    def of(self, value: V) -> bytes:
        known = self._known.get(id(value))
        return self._put(value) if known is None else known

    def of_all(self, values: Sequence[V]) -> list[bytes]:
        found = list(map(self._known.get, map(id, values)))
        if None in found:
            return [self.of(value) if text is None else text for value, text in zip(values, found, strict=True)]
        return cast("list[bytes]", found)

    def _put(self, value: V) -> bytes:
        if len(self._kept) >= self._most:
            self._known.clear()
            self._kept.clear()
        text = self._known[id(value)] = self._render(value)
        self._kept.append(value)
        return text


# Few of them: many reasons are told once only.
_REASONS: Final[_Fragments[Reason]] = _Fragments(lambda reason: encode(reason_object(reason)), 4_096)
# Members of an object, each after a comma; nothing where the value is empty.
_COMPONENTS: Final[_Fragments[tuple[tuple[str, int], ...]]] = _Fragments(
    lambda components: b',"components":%b' % encode(dict(components)) if components else b""
)
_INCARNATIONS: Final[_Fragments[str]] = _Fragments(
    lambda text: b',"incarnation":%b' % msgspec.json.encode(text) if text else b""
)
_CLUSTERS: Final[_Fragments[str]] = _Fragments(lambda text: b'{"cluster":%b' % msgspec.json.encode(text))
_SLOTS: Final[_Fragments[tuple[Slot, ...]]] = _Fragments(
    lambda slots: b",%b" % encode({"slots": slots_array(slots)})[1:-1] if slots else b""
)
_SHARES: Final[_Fragments[ClusterShare]] = _Fragments(
    lambda share: b"%b%b%b}" % (_CLUSTERS.of(share.cluster), _COMPONENTS.of(share.components), _SLOTS.of(share.slots))
)


def placement_bytes(placement: Placement) -> bytes:
    """Returns the value of a placement."""
    value = placement_object(placement, parts=False)
    if placement.reasons:
        value["reasons"] = msgspec.Raw(b"[%b]" % b",".join(_REASONS.of_all(placement.reasons)))
    if placement.shares:
        value["shares"] = msgspec.Raw(b"[%b]" % b",".join(_SHARES.of_all(placement.shares)))
    return encode(value)


def assignments_bytes(columns: AssignmentColumns) -> list[bytes]:
    """Returns the values of assignments that are columns, in the order of these."""
    before, after = _around_incarnation(assignment_object(columns.common))
    after += b"}"
    parts = zip(
        _CLUSTERS.of_all(columns.clusters),
        _COMPONENTS.of_all(columns.components),
        repeat(before),
        _INCARNATIONS.of_all(columns.incarnations),
        repeat(after),
        strict=False,
    )
    found = list(map(b"".join, parts))
    check_size(max(map(len, found), default=0), MAX_DERIVED_BYTES)
    return found


class _Siblings:
    """The assignment that was written last, and what the next one of the same decision has in common with it."""

    def __init__(self) -> None:
        names = [field.name for field in fields(Assignment) if field.name not in (*_OWN, *_SAME)]
        self._common = attrgetter(*names)
        self._of: Any = None
        self._last: Assignment | None = None
        self._before = b""
        self._after = b""

    def parts(self, assignment: Assignment) -> tuple[bytes, bytes]:
        """Returns the members that come between the components and the incarnation, and those after it."""
        common = self._common(assignment)
        last = self._last
        if (
            last is None
            or common != self._of
            or assignment.manifest is not last.manifest
            or assignment.patches is not last.patches
            or assignment.overrides is not last.overrides
        ):
            self._before, self._after = _around_incarnation(assignment_object(assignment))
            self._of, self._last = common, assignment
        return self._before, self._after


_SIBLINGS: Final = _Siblings()


def assignment_bytes(assignment: Assignment) -> bytes:
    """Returns the value of an assignment."""
    before, after = _SIBLINGS.parts(assignment)
    data = b"%b%b%b%b%b}" % (
        _CLUSTERS.of(assignment.cluster),
        _COMPONENTS.of(assignment.components),
        before,
        _INCARNATIONS.of(assignment.incarnation),
        after,
    )
    check_size(len(data), MAX_DERIVED_BYTES)
    return data


def _around_incarnation(value: dict[str, Any]) -> tuple[bytes, bytes]:
    """Returns the members that assignments of a decision have in common: those before the incarnation, and after it."""
    value.pop("cluster", None)
    value.pop("components", None)
    # Members that come before it have numbers and truth values only, so nothing else can look like this.
    value["incarnation"] = _HERE
    before, _, after = encode(value)[1:-1].partition(b'"incarnation":"%b"' % _HERE.encode())
    return (b"," + before[:-1] if before else b"", after)
