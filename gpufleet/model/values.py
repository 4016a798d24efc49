"""Values that are made by the thousand: dataclasses that only the type checker freezes.

`dataclasses.dataclass(frozen=True)` sets every field through `object.__setattr__`, which makes a value with 18 fields
three times as costly to make. These are compared, hashed, replaced and printed as frozen ones are; mypy refuses to
assign to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as value
else:
    from dataclasses import dataclass

    def value(*, frozen: bool, slots: bool):
        """Returns the decorator; both arguments are there for the type checker, which must see them."""
        if not (frozen and slots):
            raise TypeError("a value is declared with frozen=True and slots=True")
        return dataclass(slots=True, unsafe_hash=True)


__all__ = ["value"]
