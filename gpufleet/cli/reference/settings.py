"""Every setting of every process, from the settings classes."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from gpufleet.bus.settings import KafkaSettings
from gpufleet.cli.reference.markdown import code, page, table
from gpufleet.cli.system import SERVICES
from gpufleet.telemetry.settings import CONFIG_VARIABLE, FleetSettings, ProcessSettings


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. ``path`` is where the settings file has it."""

    variable: str
    path: str
    type: str
    default: str
    meaning: str


def classes() -> dict[str, type[FleetSettings]]:
    """Returns the settings classes by section: `kafka`, `process`, and one for each service."""
    found: dict[str, type[FleetSettings]] = {"kafka": KafkaSettings, "process": ProcessSettings}
    for name in SERVICES:
        module = importlib.import_module(f"services.{name}.settings")
        (found[name],) = (
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, FleetSettings) and value.__module__ == module.__name__
        )
    return found


def settings(cls: type[FleetSettings]) -> Iterator[Setting]:
    """Returns the settings of a class in the order in which it defines them."""
    prefix = cls.model_config.get("env_prefix", "")
    for name, info in cls.model_fields.items():
        yield Setting(
            variable=f"{prefix}{name}".upper(),
            path=f"{cls.section}.{name}",
            type=_type(info.annotation),
            default=_default(info),
            meaning=info.description or "",
        )


def variables() -> frozenset[str]:
    """Returns the names of all environment variables that some process reads."""
    return frozenset(s.variable for cls in classes().values() for s in settings(cls)) | {CONFIG_VARIABLE}


def settings_table(cls: type[FleetSettings]) -> str:
    """Returns the table of a class."""
    rows = [(code(s.variable), code(s.path), s.type, code(s.default), s.meaning) for s in settings(cls)]
    return table(("environment variable", "in the file", "type", "default", "meaning"), rows)


def settings_page() -> str:
    """Returns the page of all settings."""
    titles = {"kafka": "Kafka, for every process and the command line", "process": "Every service"}
    return page(
        "Settings",
        f"Settings come from environment variables, then from the YAML file that `{CONFIG_VARIABLE}` names, then from "
        "the defaults. The file has a map of sections: `scheduler.stale_after` is the setting `stale_after` in the "
        "section `scheduler`. Unknown names in a section are refused. Times are in seconds unless the name says "
        "otherwise. `gpufleet-<service> --print-config` shows what a process would use.",
        *(
            f"## {titles.get(section, section.capitalize())}\n\n{settings_table(cls)}"
            for section, cls in classes().items()
        ),
    )


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(code(str(value)) for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_type(part) for part in arguments if part is not type(None))
    names = {str: "text", int: "integer", float: "number", bool: "boolean", SecretStr: "secret"}
    return names.get(annotation, str(getattr(annotation, "__name__", annotation)).lower())


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True)
    if value is None or (isinstance(value, SecretStr) and not value.get_secret_value()):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
