"""Label and field selectors, parsed once and matched often."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sim.api.errors import bad_request

Json = dict[str, Any]
Labels = Mapping[str, str]

_SET_TERM = re.compile(r"^(\S+)\s+(in|notin)\s*\(([^()]*)\)$")
_COMPARED = re.compile(r"^([^=!<>\s]+)\s*(==|=|!=|<|>)\s*([^=!<>\s]*)$")
_KEY = re.compile(r"^(?:[a-z0-9.-]+/)?[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$")


class LabelSelector:
    """A label selector: `equal` are the pairs of its equality terms, the rest are tests.

    Build it with `parse` (the string of `labelSelector=`) or `from_document` (matchLabels, matchExpressions).
    """

    __slots__ = ("_tests", "equal", "text")

    def __init__(
        self, equal: Mapping[str, str], tests: tuple[Callable[[Labels], bool], ...] = (), text: str = ""
    ) -> None:
        self.equal = dict(equal)
        self._tests = tests
        self.text = text

    def matches(self, labels: Labels | None) -> bool:
        """Whether an object with these labels is selected."""
        have = labels or {}
        for key, value in self.equal.items():
            if have.get(key) != value:
                return False
        return all(test(have) for test in self._tests)

    @classmethod
    def parse(cls, text: str) -> LabelSelector:
        """From `a=b,c!=d,e in (f,g),!h`; ApiError 400 if it cannot be read."""
        equal: dict[str, str] = {}
        tests: list[Callable[[Labels], bool]] = []
        for term in _split_terms(text):
            _parse_term(term, text, equal, tests)
        return cls(equal, tuple(tests), text)

    @classmethod
    def from_document(cls, selector: Json | None) -> LabelSelector:
        """From a `LabelSelector` object; None selects nothing, an empty one everything (as upstream)."""
        if selector is None:
            return cls({}, (lambda _labels: False,))
        tests = [
            _test(term["key"], term["operator"].lower(), tuple(term.get("values") or ()))
            for term in selector.get("matchExpressions") or ()
        ]
        return cls(selector.get("matchLabels") or {}, tuple(tests))


def _split_terms(text: str) -> list[str]:
    terms, depth, start = [], 0, 0
    for index, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            terms.append(text[start:index])
            start = index + 1
    terms.append(text[start:])
    return [term.strip() for term in terms if term.strip()]


def _parse_term(term: str, text: str, equal: dict[str, str], tests: list[Callable[[Labels], bool]]) -> None:
    if match := _SET_TERM.match(term):
        key, operator, values = match.groups()
        tests.append(_test(key, operator, tuple(v.strip() for v in values.split(","))))
    elif match := _COMPARED.match(term):
        key, operator, value = match.groups()
        if operator in {"=", "=="} and equal.get(key, value) == value:
            equal[key] = value
        elif operator in {"=", "=="}:
            tests.append(_test(key, "in", (value,)))
        elif operator == "!=":
            tests.append(_test(key, "notin", (value,)))
        else:
            tests.append(_order_test(key, operator, value, text))
    elif term.startswith("!") and _KEY.match(term[1:].strip()):
        tests.append(_test(term[1:].strip(), "doesnotexist", ()))
    elif _KEY.match(term):
        tests.append(_test(term, "exists", ()))
    else:
        raise bad_request(f'unable to parse requirement: "{term}" in label selector "{text}"')


def _test(key: str, operator: str, values: tuple[str, ...]) -> Callable[[Labels], bool]:
    if operator == "in":
        return lambda labels: labels.get(key) in values
    if operator == "notin":
        return lambda labels: labels.get(key) not in values
    if operator == "exists":
        return lambda labels: key in labels
    if operator == "doesnotexist":
        return lambda labels: key not in labels
    raise bad_request(f'"{operator}" is not a valid label selector operator')


def _order_test(key: str, operator: str, value: str, text: str) -> Callable[[Labels], bool]:
    try:
        limit = int(value)
    except ValueError:
        raise bad_request(f'"{value}" is not a number in label selector "{text}"') from None

    def test(labels: Labels) -> bool:
        try:
            number = int(labels[key])
        except (KeyError, ValueError):
            return False
        return number > limit if operator == ">" else number < limit

    return test


class FieldSelector:
    """A field selector: terms of (path, wanted, equal?), all of which must hold."""

    __slots__ = ("terms", "text")

    def __init__(self, terms: tuple[tuple[str, str, bool], ...], text: str = "") -> None:
        self.terms = terms
        self.text = text

    @classmethod
    def parse(cls, text: str) -> FieldSelector:
        """From `metadata.name=x,spec.nodeName!=y`; ApiError 400 if it cannot be read."""
        terms = []
        for term in text.split(","):
            if not term.strip():
                continue
            path, operator, value = _field_term(term.strip(), text)
            terms.append((path, value, operator != "!="))
        return cls(tuple(terms), text)

    def equal(self, path: str) -> str | None:
        """The value that the selector demands of a path, if it does."""
        return next((value for have, value, same in self.terms if have == path and same), None)

    def matches(self, obj: Json) -> bool:
        """Whether the object is selected; a field that it lacks counts as the empty string."""
        return all((field_text(obj, path) == value) is same for path, value, same in self.terms)


def _field_term(term: str, text: str) -> tuple[str, str, str]:
    for operator in ("!=", "==", "="):
        path, found, value = term.partition(operator)
        if found:
            return path.strip(), operator, value.strip()
    raise bad_request(f'invalid field selector "{text}": can\'t understand "{term}"')


def field_text(obj: Json, path: str) -> str:
    """The field at a dotted path as field selectors see it."""
    if path == "source" and obj.get("kind") == "Event":
        # As kube-apiserver: the component of the old field, else the controller of the new one.
        return str((obj.get("source") or {}).get("component") or obj.get("reportingComponent") or "")
    value: Any = obj
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
