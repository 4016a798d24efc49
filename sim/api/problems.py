"""Collects what is wrong with an object, as field causes in upstream's words."""

from __future__ import annotations

import json
import re
from typing import Any

from sim.api import errors
from sim.api.quantity import MALFORMED, canonical
from sim.api.resources import Resource

Json = dict[str, Any]

DNS_LABEL = re.compile(r"^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?$")
DNS_SUBDOMAIN = re.compile(r"^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*$")


class Problems:
    """The causes found so far: `malformed` ones make the answer 400, the others 422."""

    def __init__(self) -> None:
        self.causes: list[Json] = []
        self.malformed: list[str] = []

    def invalid(self, field: str, value: Any, message: str) -> None:
        """A value outside its range or form."""
        shown = json.dumps(value, separators=(",", ":"))
        self.causes.append(errors.cause("FieldValueInvalid", field, f"Invalid value: {shown}: {message}"))

    def required(self, field: str, message: str = "") -> None:
        """A field that has to be there."""
        text = f"Required value: {message}" if message else "Required value"
        self.causes.append(errors.cause("FieldValueRequired", field, text))

    def unsupported(self, field: str, value: Any, allowed: tuple[str, ...]) -> None:
        """A value that is none of the allowed ones."""
        listed = ", ".join(f'"{item}"' for item in allowed)
        message = f"Unsupported value: {json.dumps(value)}: supported values: {listed}"
        self.causes.append(errors.cause("FieldValueNotSupported", field, message))

    def forbidden(self, field: str, message: str) -> None:
        """A change or a field that is not allowed here."""
        self.causes.append(errors.cause("FieldValueForbidden", field, f"Forbidden: {message}"))

    def duplicate(self, field: str, value: Any) -> None:
        """A name that is taken already."""
        message = f"Duplicate value: {json.dumps(value)}"
        self.causes.append(errors.cause("FieldValueDuplicate", field, message))

    def wrong_type(self, field: str, value: Any, wanted: str) -> None:
        """A JSON type that the field cannot hold."""
        given = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
        kind = given.get(type(value), "null")
        self.malformed.append(f"json: cannot unmarshal {kind} into Go struct field {field} of type {wanted}")

    def section(self, parent: Json, key: str, path: str) -> Json:
        """The object at `key`, or an empty one where it is missing or of another type."""
        value = parent.get(key)
        if value is not None and not isinstance(value, dict):
            self.wrong_type(f"{path}{key}", value, "object")
            return {}
        return value or {}

    def objects(self, parent: Json, key: str, path: str) -> list[tuple[str, Json]]:
        """The objects of the list at `key` with their paths."""
        value = parent.get(key)
        if value is not None and not isinstance(value, list):
            self.wrong_type(f"{path}{key}", value, "array")
            return []
        found = []
        for index, item in enumerate(value or ()):
            if isinstance(item, dict):
                found.append((f"{path}{key}[{index}]", item))
            else:
                self.wrong_type(f"{path}{key}[{index}]", item, "object")
        return found

    def whole_number(self, parent: Json, key: str, path: str, *, least: int = 0) -> None:
        """An optional integer that is at least `least`."""
        value = parent.get(key)
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong_type(f"{path}{key}", value, "int32")
        elif value < least:
            self.invalid(f"{path}{key}", value, f"must be greater than or equal to {least}")

    def one_of(self, parent: Json, key: str, path: str, allowed: tuple[str, ...]) -> None:
        """An optional string out of a list."""
        value = parent.get(key)
        if value is not None and value not in allowed:
            self.unsupported(f"{path}{key}", value, allowed)

    def quantities(self, parent: Json, key: str, path: str) -> Json:
        """A map of quantities, none of them negative; answers those that can be read."""
        good: Json = {}
        for name, value in self.section(parent, key, path).items():
            try:
                text = canonical(value if isinstance(value, str) else json.dumps(value))
            except ValueError:
                self.malformed.append(f"{MALFORMED} ({path}{key}[{name}] is {json.dumps(value)})")
                continue
            good[name] = text
            if text.startswith("-"):
                self.invalid(f"{path}{key}[{name}]", value, "must be greater than or equal to 0")
        return good

    def raise_for(self, resource: Resource, name: str) -> None:
        """ApiError 400 or 422 if there are problems."""
        if self.malformed:
            raise errors.bad_request(
                f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
                + "; ".join(self.malformed)
            )
        if self.causes:
            raise errors.invalid(resource, name, self.causes)
