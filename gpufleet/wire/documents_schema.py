"""What the models of documents share: how they are checked, and how a problem is said.

A document is held to a pydantic model. Every problem is noted, not only the first; what is wrong is then left out and
the rest is read, so that the checks across fields speak in the same run. Unknown fields are warned about: people bring
manifests that were written for other tools.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from gpufleet.model.kinds.reading import PLACEHOLDER_HINT, Problem, View, is_placeholder, join, name_of_type

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
Count = Annotated[int, Field(ge=0, le=INT32_MAX)]


class Doc(BaseModel):
    """A map in a document: lowerCamel names, strict types."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=False,
        validate_by_alias=True,
        extra="ignore",
        strict=True,
        allow_inf_nan=False,
        defer_build=True,
    )


D = TypeVar("D", bound=Doc)


@dataclass(slots=True)
class Findings:
    """What was found in one document, by path. ``namespace`` is that of objects that name none."""

    namespace: str = "default"
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    # Maps from which a wrong field was left out: its default may not go with its neighbours.
    incomplete: set[str] = field(default_factory=set)
    unknown_kind: bool = False

    def error(self, path: str, message: str, hint: str = "") -> None:
        """Notes an error."""
        if path in self.incomplete or path.rpartition(".")[0] in self.incomplete:
            return
        self.errors.append(Problem(path, message, hint))

    def warn(self, path: str, message: str, hint: str = "") -> None:
        """Notes a warning."""
        self.warnings.append(Problem(path, message, hint))

    def view(self, value: Mapping[str, Any], path: str) -> View:
        """Returns a reader of a free-form map whose problems are errors."""
        return View(value, path, self.errors)


def check(model: type[D], value: Mapping[str, Any], findings: Findings) -> D | None:
    """Returns a document as its model, or None where too little of it is right. Null is the same as absent."""
    value = _copy(model, value)
    _warn_unknown(model, value, "", findings)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = error.errors(include_url=False)
    findings.errors.extend(_explain(problem, value) for problem in problems)
    # Fields right below `spec` do not depend on each other.
    parents = {path_of(problem["loc"][:-1]) for problem in problems}
    findings.incomplete.update(parent for parent in parents if "." in parent)
    return _salvage(model, value, problems)


def path_of(parts: tuple[str | int, ...]) -> str:
    """Returns the path of a field from its parts."""
    path = ""
    for part in parts:
        path = join(path, part)
    return path


def _copy(model: type[Doc] | None, value: Any) -> Any:
    """Returns a copy to leave fields out of, without the nulls of typed fields; free-form values keep theirs."""
    if isinstance(value, list | tuple):
        return [_copy(model, item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if model is None:
        return dict(value)
    known = _fields(model)
    copy: dict[str, Any] = {}
    for key, item in value.items():
        if item is None:
            continue
        nested, inside = known.get(key, _FREE)
        if inside == "dict" and isinstance(item, Mapping):
            copy[key] = {name: _copy(nested, member) for name, member in item.items()}
        else:
            copy[key] = _copy(nested, item)
    return copy


def _salvage(model: type[D], value: Any, problems: list[ErrorDetails]) -> D | None:
    """Returns the model of what is left without the wrong fields. A list keeps its length, or paths would lie."""
    for problem in problems:
        here = value
        *way, last = problem["loc"] or ("",)
        for part in way:
            try:
                here = here[part]
            except (KeyError, IndexError, TypeError):
                return None
        if not isinstance(here, dict) or problem["type"] == "missing":
            return None
        here.pop(last, None)
    try:
        return model.model_validate(value)
    except ValidationError:
        return None


# --- Saying what is wrong -----------------------------------------------------------------------------------------

_WANTED = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of reasonable size",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a map",
    "model_type": "a map",
    "model_attributes_type": "a map",
}


def _explain(problem: ErrorDetails, document: Any) -> Problem:
    path, kind, given = path_of(problem["loc"]), problem["type"], problem["input"]
    context = problem.get("ctx", {})
    if kind == "missing":
        return Problem(path, "is missing", _near(problem["loc"], document))
    if kind in _WANTED:
        instead = f", not {name_of_type(given)}"
        hint = ""
        if kind == "string_type" and isinstance(given, bool | int | float):
            text = str(given).lower() if isinstance(given, bool) else given
            hint = f'write "{text}" in quotes'
        if isinstance(given, float):
            instead = f", not {given}"
        return Problem(path, f"must be {_WANTED[kind]}{instead}", hint)
    match kind:
        case "literal_error" | "enum":
            return Problem(path, f"is {shown(given)}", f"use {context.get('expected')}")
        case "greater_than_equal":
            return Problem(path, f"is {shown(given)}, but must be {context['ge']} or more")
        case "less_than_equal":
            return Problem(path, f"is {shown(given)}, but must be {context['le']} or less")
        case "string_too_short":
            return Problem(path, "is empty")
        case "string_too_long":
            return Problem(path, f"has more than {context['max_length']} characters")
        case "too_short":
            return Problem(path, "is empty", f"name at least {context['min_length']}")
    return Problem(path, f"{shown(given)}: {problem['msg']}")


def shown(value: object) -> str:
    """Returns a value as it is shown in a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _near(path: tuple[str | int, ...], document: Any) -> str:
    """Returns a hint where a missing field seems to be there under a similar name."""
    here = document
    for part in path[:-1]:
        here = here[part]
    near = difflib.get_close_matches(str(path[-1]), [str(key) for key in here], n=1, cutoff=0.75)
    return f"did you mean it by {near[0]}?" if near else ""


class _Members(NamedTuple):
    model: type[Doc] | None
    inside: str  # "" the value itself, "list" its items, "dict" its values


_FREE = _Members(None, "")


@cache
def _fields(model: type[Doc]) -> dict[str, _Members]:
    """Returns the fields that a model knows, by name in the document."""
    return {(info.alias or name): _Members(*_nested(info.annotation, "")) for name, info in model.model_fields.items()}


def _nested(annotation: Any, inside: str) -> tuple[type[Doc] | None, str]:
    if isinstance(annotation, type) and issubclass(annotation, Doc):
        return annotation, inside
    origin = getattr(annotation, "__origin__", None)
    if origin in (list, dict):
        inside = origin.__name__
    for argument in get_args(annotation):
        found, where = _nested(argument, inside)
        if found is not None:
            return found, where
    return None, ""


def _warn_unknown(model: type[Doc], value: Any, path: str, findings: Findings) -> None:
    if not isinstance(value, Mapping):
        return
    known = _fields(model)
    for key, item in value.items():
        here = join(path, key)
        if key not in known:
            if model.model_config.get("extra") != "allow":
                near = nearest(key, known)
                findings.warn(here, "is not a known field and is ignored", f"did you mean {near}?" if near else "")
            continue
        nested, inside = known[key]
        if nested is None:
            continue
        if inside == "list" and isinstance(item, list):
            for index, member in enumerate(item):
                _warn_unknown(nested, member, join(here, index), findings)
        elif inside == "dict" and isinstance(item, Mapping):
            for name, member in item.items():
                _warn_unknown(nested, member, join(here, str(name)), findings)
        elif not inside:
            _warn_unknown(nested, item, here, findings)


def nearest(name: str, known: Mapping[str, Any] | tuple[str, ...] | list[str]) -> str:
    """Returns the known name that is most like one, or nothing."""
    by_lower = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.7)
    return by_lower[near[0]] if near else ""


def refuse_placeholders(value: Any, findings: Findings) -> None:
    """Notes texts such as ``${Cluster 1 ID}`` and ``<RegionID>`` that were to be replaced, as errors."""
    for parts, text in _placeholders(value, ()):
        findings.error(path_of(parts), f"{text} is a placeholder", PLACEHOLDER_HINT)


def _placeholders(value: Any, parts: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        if value[:1] in ("$", "<") and is_placeholder(value):
            yield parts, value
    elif isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(item, str | dict | list | tuple):
                yield from _placeholders(item, (*parts, key))
