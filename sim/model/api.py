"""What a controller is: it reads a View, and asks for Writes.

A controller is level-triggered: what it does depends on the objects as they are, never on what happened. It has no
clock, no I/O and no randomness; state that it keeps is a cache of objects that `observe` has told it of, so that a
fresh controller on the same objects comes to the same end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

Json = dict[str, Any]
Kind = tuple[str, str]
"""apiVersion and kind."""
Propagation = Literal["Background", "Foreground", "Orphan"]


class Ref(NamedTuple):
    """Names one object. `namespace` is empty for cluster-scoped kinds."""

    api_version: str
    kind: str
    namespace: str
    name: str


def ref_of(obj: Mapping[str, Any]) -> Ref:
    """The name of an object that has apiVersion, kind and metadata."""
    metadata = obj["metadata"]
    return Ref(obj["apiVersion"], obj["kind"], metadata.get("namespace", ""), metadata["name"])


class View(Protocol):
    """Read access to one cluster. Objects are shared: never change them.

    Lists come in order of namespace and name.
    """

    def get(self, api_version: str, kind: str, namespace: str, name: str) -> Json | None:
        """One object, or None."""

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Json]:
        """All objects of a kind, of one namespace if given, with all of the labels if given."""

    def owned_by(self, uid: str, api_version: str, kind: str) -> Sequence[Json]:
        """Objects of a kind with an owner reference to `uid`."""

    def pods_on(self, node: str) -> Sequence[Json]:
        """Pods bound to a node, finished ones included."""


@dataclass(frozen=True, slots=True)
class Create:
    """Create an object; that it exists already is an error of the write."""

    obj: Json


@dataclass(frozen=True, slots=True)
class Patch:
    """A JSON merge patch of the object, or of a subresource (`status`, `scale`).

    `uid` and `resource_version`, where given, must still be the object's, or else nothing is written and the key is
    reconciled again. Lists are replaced as a whole.
    """

    ref: Ref
    patch: Json
    subresource: str = ""
    uid: str = ""
    resource_version: str = ""


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete an object; that it is gone already is no error.

    `grace_seconds` None means the pod's own; 0 removes a pod at once. `propagation` says what becomes of
    dependents.
    """

    ref: Ref
    uid: str = ""
    grace_seconds: int | None = None
    propagation: Propagation = "Background"


@dataclass(frozen=True, slots=True)
class Bind:
    """Bind a pod to a node (the `binding` subresource)."""

    namespace: str
    name: str
    node: str
    uid: str = ""


Write = Create | Patch | Delete | Bind


@dataclass(frozen=True, slots=True)
class Result:
    """What a reconcile asks for: writes, done in order, and when to look again (epoch seconds, None: on changes)."""

    writes: Sequence[Write] = ()
    wake_at: float | None = None


DONE = Result()


class Event(NamedTuple):
    """An object that was added (`old` None), changed, or deleted (`obj` None)."""

    kind: Kind
    obj: Json | None
    old: Json | None

    @property
    def current(self) -> Json:
        """The object, or what it last was."""
        found = self.obj if self.obj is not None else self.old
        if found is None:
            raise ValueError("an event has an object before or after it")
        return found


class Controller(Protocol):
    """One controller. `name` is also its field manager; `watches` are the kinds whose changes it is told of."""

    @property
    def name(self) -> str: ...

    @property
    def watches(self) -> tuple[Kind, ...]: ...

    def observe(self, view: View, event: Event) -> Iterable[Ref]:
        """Takes a change into account and names what has to be reconciled for it."""

    def reconcile(self, view: View, key: Ref, now: float) -> Result:
        """Compares the objects with what they should be. `now` is in epoch seconds."""
