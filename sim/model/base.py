"""The usual shape of a controller: one primary kind, and dependents that point at it by owner reference."""

from __future__ import annotations

from collections.abc import Iterable

from sim.model.api import Event, Kind, Ref, Result, View, ref_of
from sim.model.objects import owner_ref


class OwnerController:
    """Reconciles objects of `primary`; a change of a dependent concerns its managing controller.

    A subclass sets `name`, `primary` and `dependents`, and has `reconcile`.
    """

    name: str = ""
    primary: Kind = ("", "")
    dependents: tuple[Kind, ...] = ()

    @property
    def watches(self) -> tuple[Kind, ...]:
        """The primary kind and its dependents."""
        return (self.primary, *self.dependents)

    def observe(self, view: View, event: Event) -> Iterable[Ref]:  # noqa: ARG002 - subclasses read the view
        """The primary object itself, or the owner of a dependent."""
        if event.kind == self.primary:
            return () if event.obj is None else (ref_of(event.obj),)
        owner = owner_ref(event.current, self.primary)
        return () if owner is None else (owner,)

    def reconcile(self, view: View, key: Ref, now: float) -> Result:
        """Brings what is owned by `key` to what it should be."""
        raise NotImplementedError
