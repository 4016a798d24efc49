"""Kubernetes quantities as exact integers.

Amounts of a resource are integers in its smallest useful unit: millicores for ``cpu``, bytes for ``memory``
and every other byte-counted resource, and whole units for counted ones (``pods``, ``nvidia.com/gpu``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache

_QUANTITY = re.compile(r"^([+-]?)(\d+(?:\.\d*)?|\.\d+)(?:(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE])|[eE]([+-]?\d{1,3}))?$")
_FACTORS: Mapping[str, Fraction] = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
    "Ki": Fraction(2**10),
    "Mi": Fraction(2**20),
    "Gi": Fraction(2**30),
    "Ti": Fraction(2**40),
    "Pi": Fraction(2**50),
    "Ei": Fraction(2**60),
}
_BINARY = (("Ei", 2**60), ("Pi", 2**50), ("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10))
_BYTE_COUNTED = ("memory", "ephemeral-storage", "storage")
# Larger than anything real, small enough that sums over a fleet stay far below 2**63.
LIMIT = 2**60
_LONGEST = 64  # characters


class QuantityError(ValueError):
    """A text that is no Kubernetes quantity, or one that is negative or absurdly large."""


@lru_cache(maxsize=16384, typed=True)
def parse(text: str | int | float, resource: str = "", *, round_up: bool = True) -> int:
    """Returns the quantity in the resource's unit: millicores for ``cpu``, else base units.

    Fractions are rounded up (a request never shrinks) unless ``round_up`` is false (an allocatable never grows).
    Raises QuantityError.
    """
    if isinstance(text, int) and not isinstance(text, bool) and abs(text) > LIMIT:
        raise QuantityError("the number is too large; the limit is 1Ei" if text > 0 else "the number is negative")
    written = str(text).strip()
    match = _QUANTITY.match(written) if len(written) <= _LONGEST else None
    if match is None or isinstance(text, bool):
        # Cut after quoting: a control character is written as up to ten.
        shown = repr(written[:_LONGEST])[: _LONGEST + 2]
        raise QuantityError(f"{shown} is not a quantity; write a number such as 500m, 2, 1.5 or 16Gi")
    sign, digits, suffix, exponent = match.groups()
    value = Fraction(digits) * (Fraction(10) ** int(exponent) if exponent else _FACTORS[suffix or ""])
    if sign == "-" and value:
        raise QuantityError(f"{text!r} is negative; a quantity must be 0 or more")
    if resource == "cpu":
        value *= 1000
    amount = -((-value).__floor__()) if round_up else value.__floor__()
    if amount > LIMIT:
        raise QuantityError(f"{text!r} is too large; the limit is 1Ei")
    return int(amount)


def render(amount: int, resource: str = "") -> str:
    """Returns the shortest exact quantity for an amount; ``parse(render(x, r), r) == x``."""
    if resource == "cpu":
        return str(amount // 1000) if amount % 1000 == 0 else f"{amount}m"
    if resource in _BYTE_COUNTED or resource.startswith("hugepages-"):
        for suffix, factor in _BINARY:
            if amount and amount % factor == 0:
                return f"{amount // factor}{suffix}"
    return str(amount)
