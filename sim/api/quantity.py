"""Kubernetes quantities in their canonical form, which is how an API server gives them back."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

_FORM = re.compile(r"^([+-]?)(\d+\.?\d*|\.\d+)(?:(Ki|Mi|Gi|Ti|Pi|Ei)|([numkMGTPE])|[eE]([+-]?\d+))?$")
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = {-9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
_EXPONENTS = {suffix: exponent for exponent, suffix in _DECIMAL.items()}

MALFORMED = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


@lru_cache(maxsize=8192)
def canonical(text: str) -> str:
    """`1024Mi` to `1Gi`, `0.5` to `500m`, `1000m` to `1`; ValueError if it is no quantity."""
    match = _FORM.match(text.strip())
    if match is None:
        raise ValueError(MALFORMED)
    sign, digits, binary, decimal, exponent = match.groups()
    value = Fraction(digits if not digits.endswith(".") else digits[:-1])
    if binary:
        value *= 1024 ** _BINARY.index(binary)
    elif exponent:
        value *= Fraction(10) ** int(exponent)
    else:
        value *= Fraction(10) ** _EXPONENTS[decimal or ""]
    # Finer than nano is rounded up, away from zero.
    value = Fraction(-(-value.numerator * 10**9 // value.denominator), 10**9)
    if sign == "-":
        value = -value
    if binary and abs(value) >= 1024 and value.denominator == 1:
        return _scaled(int(value), 1024, _BINARY)
    return _canonical_decimal(value, scientific=bool(exponent))


@lru_cache(maxsize=8192)
def amount(text: str) -> Fraction:
    """The value of a canonical quantity."""
    match = _FORM.match(canonical(text))
    assert match is not None
    sign, digits, binary, decimal, exponent = match.groups()
    value = Fraction(digits)
    if binary:
        value *= 1024 ** _BINARY.index(binary)
    else:
        value *= Fraction(10) ** (int(exponent) if exponent else _EXPONENTS[decimal or ""])
    return -value if sign == "-" else value


def _scaled(value: int, base: int, suffixes: tuple[str, ...]) -> str:
    power = 0
    while value % base == 0 and power < len(suffixes) - 1 and value:
        value //= base
        power += 1
    return f"{value}{suffixes[power]}"


def _canonical_decimal(value: Fraction, *, scientific: bool) -> str:
    if value == 0:
        return "0"
    exponent = -9
    number = int(value * 10**9)
    while number % 1000 == 0 and exponent < 18:
        number //= 1000
        exponent += 3
    if scientific:
        return f"{number}e{exponent}" if exponent else str(number)
    return f"{number}{_DECIMAL[exponent]}"
