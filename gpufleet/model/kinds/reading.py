"""Reading a manifest that anybody may have written: every problem is noted with the path of its field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from gpufleet.model import quantity
from gpufleet.model.resources import Labels

# More pods than this in one component are a slip of the keyboard.
MAX_REPLICAS = 100_000
_PLAIN_KEY = re.compile(r"^[^.\[\]]+$")
_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_PLACEHOLDER = re.compile(r"^\$\{[^{}]+\}$|^<[A-Za-z][^<>]*>$")
_LABEL_VALUE = re.compile(r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?\Z")
PLACEHOLDER_HINT = "put your own value in its place"
QUANTITY_HINT = "write a number such as 500m, 2, 1.5 or 16Gi"


class Problem(NamedTuple):
    """What is wrong with a field, and what would be right."""

    path: str
    message: str
    hint: str = ""


class KindError(ValueError):
    """A manifest that cannot be scheduled. ``path``, ``message`` and ``hint`` are those of the first problem."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        self.path, self.message, self.hint = problems[0]
        super().__init__("; ".join(describe(problem) for problem in problems))


def describe(problem: Problem) -> str:
    """Returns ``path: message; hint``."""
    text = f"{problem.path}: {problem.message}" if problem.path else problem.message
    return f"{text}; {problem.hint}" if problem.hint else text


def join(path: str, key: str | int) -> str:
    """Returns the path of a member: ``a.b``, ``a[0]``, and ``a[nvidia.com/gpu]`` for a key with dots."""
    if isinstance(key, int) or not _PLAIN_KEY.match(key):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def name_of_type(value: object) -> str:
    """Returns what a user calls the type of a YAML value."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case Mapping():
            return "a map"
        case _:
            return "a list"


@dataclass(frozen=True, slots=True)
class View:
    """A map in a manifest, its path, and the list that problems go to. A missing or wrong map reads as empty."""

    value: Mapping[str, Any]
    path: str
    problems: list[Problem]

    def problem(self, key: str | int | None, message: str, hint: str = "") -> None:
        """Notes what is wrong with a member, or with the map itself."""
        self.problems.append(Problem(self.path if key is None else join(self.path, key), message, hint))

    def wrong_type(self, key: str | int, wanted: str, value: object) -> None:
        """Notes that a member is of the wrong type."""
        self.problem(key, f"must be {wanted}, not {name_of_type(value)}")

    def map(self, key: str) -> View:
        """Returns a member that is a map."""
        value = self.value.get(key)
        if value is not None and not isinstance(value, Mapping):
            self.wrong_type(key, "a map", value)
            value = None
        return View(value or {}, join(self.path, key), self.problems)

    def items(self, key: str) -> list[View]:
        """Returns the maps of a member that is a list of maps."""
        value = self.value.get(key)
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            self.wrong_type(key, "a list", value)
            return []
        path, views = join(self.path, key), []
        for index, item in enumerate(value):
            if isinstance(item, Mapping):
                views.append(View(item, join(path, index), self.problems))
            else:
                self.problems.append(Problem(join(path, index), f"must be a map, not {name_of_type(item)}"))
        return views

    def text(self, key: str, default: str = "") -> str:
        """Returns a member that is a text."""
        value = self.value.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            self.problem(key, f"must be a text, not {name_of_type(value)}", f'write "{value}" in quotes')
            return default
        return value

    def integer(self, key: str, default: int, minimum: int = 0, maximum: int | None = None) -> int:
        """Returns a member that is a whole number within bounds."""
        value = self.optional_integer(key)
        if value is None:
            return default
        if value < minimum:
            self.problem(key, f"is {value}, but must be {minimum} or more")
            return default
        if maximum is not None and value > maximum:
            self.problem(key, f"is {value}, more than the limit of {maximum}")
            return default
        return value

    def optional_integer(self, key: str) -> int | None:
        """Returns a member that is a whole number, or None."""
        value = self.value.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self.problem(key, f"must be a whole number, not {value!r}")
            return None
        return value

    def priority(self, key: str = "priority") -> int | None:
        """Returns a member that is a priority, a whole number of 32 bits, or None."""
        value = self.optional_integer(key)
        if value is not None and not -(2**31) <= value < 2**31:
            self.problem(key, f"is {value}, but a priority has 32 bits", f"write {2**31 - 1} at most")
            return None
        return value

    def replicas(self, key: str, default: int = 1) -> int:
        """Returns a member that counts pods."""
        return self.integer(key, default, maximum=MAX_REPLICAS)

    def flag(self, key: str) -> bool:
        """Returns a member that is true or false; absent is false."""
        value = self.value.get(key)
        if value is not None and not isinstance(value, bool):
            self.wrong_type(key, "true or false", value)
        return value is True

    def strings(self, key: str) -> Labels:
        """Returns a member that maps texts to texts: labels, annotations, a node selector."""
        pairs = []
        view = self.map(key)
        for name, value in view.value.items():
            if isinstance(value, str):
                pairs.append((str(name), value))
            else:
                text = str(value).lower() if isinstance(value, bool) else value
                view.problem(str(name), f"must be a text, not {name_of_type(value)}", f'write "{text}" in quotes')
        return tuple(sorted(pairs))

    def labels(self, key: str) -> Labels:
        """Returns a member that holds labels: texts that Kubernetes takes as their values."""
        labels = self.strings(key)
        for name, value in labels:
            if not is_label_value(value):
                self.map(key).problem(name, *label_problem(value))
        return labels

    def texts(self, key: str) -> tuple[str, ...]:
        """Returns a member that is a list of texts."""
        value = self.value.get(key)
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            self.wrong_type(key, "a list", value)
            return ()
        wrong = next((index for index, item in enumerate(value) if not isinstance(item, str)), None)
        if wrong is not None:
            path = join(self.path, key)
            self.problems.append(Problem(join(path, wrong), f"must be a text, not {name_of_type(value[wrong])}"))
            return ()
        return tuple(value)

    def quantities(self, key: str) -> dict[str, int]:
        """Returns a member that maps resources to quantities, parsed and rounded up."""
        view = self.map(key)
        amounts = {name: view.quantity(name) for name in view.value if isinstance(name, str)}
        return {name: amount for name, amount in amounts.items() if amount is not None}

    def quantity(self, key: str, resource: str | None = None) -> int | None:
        """Returns a member that is a quantity of a resource (its key, unless named), or None."""
        value = self.value.get(key)
        name = key if resource is None else resource
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self.problem(key, f"must be a quantity, not {name_of_type(value)}", QUANTITY_HINT)
            return None
        try:
            amount = quantity.parse(value, name)
            if "/" in name and quantity.parse(value, name, round_up=False) != amount:
                self.problem(key, f"is {value}, but only whole units can be asked for")
        except quantity.QuantityError as error:
            message, _, hint = str(error).partition("; ")
            self.problem(key, message, hint)
            return None
        return amount


def check_subdomain(view: View, key: str, value: str) -> None:
    """Notes a name that Kubernetes would not take."""
    if not is_subdomain(value):
        view.problem(
            key,
            f"{value!r} is not a valid name",
            "use lower-case letters, digits, '-' and '.', starting and ending with a letter or digit",
        )


def is_subdomain(value: str) -> bool:
    """Returns whether a text can be the name of an object."""
    return len(value) <= 253 and _SUBDOMAIN.match(value) is not None


def is_label_value(value: str) -> bool:
    """Returns whether a text can be the value of a label."""
    return len(value) <= 63 and _LABEL_VALUE.match(value) is not None


def is_label_key(key: str) -> bool:
    """Returns whether a text can be the key of a label: a name, perhaps with a domain and a slash before it."""
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > 253 or not _SUBDOMAIN.match(prefix)):
        return False
    return bool(name) and is_label_value(name)


def key_problem(key: str, what: str) -> tuple[str, str]:
    """Returns why a text cannot be a key (of a label, or whatever else is named as they are), and what would be."""
    return (
        f"{key[:70]!r} cannot be {what}",
        "use at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit, "
        "perhaps after a domain and a slash",
    )


def label_problem(value: str) -> tuple[str, str]:
    """Returns why a text cannot be the value of a label, and what would be right."""
    if is_placeholder(value):
        return f"{value} is a placeholder", PLACEHOLDER_HINT
    return (
        f"{value[:70]!r} cannot be the value of a label",
        "use at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit",
    )


def is_placeholder(text: str) -> bool:
    """Returns whether a text is one that a document leaves to be replaced: ``${Cluster 1 ID}``, ``<RegionID>``."""
    return _PLACEHOLDER.match(text) is not None
