"""Selectors, taints and tolerations with Kubernetes' own meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpufleet.model.resources import Labels


@dataclass(frozen=True, slots=True)
class Requirement:
    """One expression: ``operator`` is In, NotIn, Exists, DoesNotExist, Gt or Lt."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Returns whether labels satisfy the expression; NotIn is also true where the key is missing."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case "Gt" | "Lt":
                try:
                    number, bound = int(value or ""), int(self.values[0])
                except (ValueError, IndexError):
                    return False
                return number > bound if self.operator == "Gt" else number < bound
        return False


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All of ``match_labels`` and all of ``expressions``; empty selects everything."""

    match_labels: Labels = ()
    expressions: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Returns whether labels satisfy the selector."""
        return all(labels.get(k) == v for k, v in self.match_labels) and all(
            e.matches(labels) for e in self.expressions
        )


@dataclass(frozen=True, slots=True)
class NodeSelectorTerm:
    """One alternative of a required node affinity: all of its expressions over labels and fields."""

    expressions: tuple[Requirement, ...] = ()
    fields: tuple[Requirement, ...] = ()  # only metadata.name exists upstream

    def matches(self, labels: Mapping[str, str], name: str | None = None) -> bool:
        """Returns whether a node satisfies the term; an empty term matches nothing, as upstream."""
        if not self.expressions and not self.fields:
            return False
        known = {} if name is None else {"metadata.name": name}
        return all(e.matches(labels) for e in self.expressions) and all(f.matches(known) for f in self.fields)


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint of a node or of a cluster; ``since`` (epoch seconds) is when it was added, if known."""

    key: str
    effect: str  # NoSchedule | PreferNoSchedule | NoExecute
    value: str = ""
    since: float | None = None

    @property
    def text(self) -> str:
        """The taint as kubectl writes it: ``key=value:effect``, or ``key:effect`` without a value."""
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


@dataclass(frozen=True, slots=True)
class Toleration:
    """A toleration; an empty key with operator Exists tolerates everything."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""
    seconds: int | None = None

    def tolerates(self, taint: Taint) -> bool:
        """Returns whether the taint is tolerated."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        if self.operator == "Exists":
            return True
        return bool(self.key) and self.value == taint.value


def untolerated(
    taints: tuple[Taint, ...],
    tolerations: tuple[Toleration, ...],
    effects: tuple[str, ...] = ("NoSchedule", "NoExecute"),
) -> Taint | None:
    """Returns the first taint with one of the effects that nothing tolerates, or None."""
    for taint in taints:
        if taint.effect in effects and not any(t.tolerates(taint) for t in tolerations):
            return taint
    return None
