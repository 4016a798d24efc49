"""Settings of every process: from environment variables, then from the file that GPUFLEET_CONFIG names.

A file is YAML with one section per part, for example `scheduler: {stale_after: 45}` or `kafka: {bootstrap: …}`; an
environment variable wins over it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import Field
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from gpufleet.wire.yaml import plain

CONFIG_VARIABLE = "GPUFLEET_CONFIG"


class SettingsError(ValueError):
    """A settings file that cannot be used; the text names file and section."""


class FleetSettings(BaseSettings):
    """Base of all settings. `section` is where the file has them; unknown names in a section are refused."""

    section: ClassVar[str] = ""

    model_config = SettingsConfigDict(extra="ignore")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then environment, then the file."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, _FileSource(settings_cls, cls.section)


class _FileSource(PydanticBaseSettingsSource):
    def __init__(self, settings_cls: type[BaseSettings], section: str) -> None:
        super().__init__(settings_cls)
        self._values = _section(section, settings_cls)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return dict(self._values)


def _section(name: str, settings_cls: type[BaseSettings]) -> Mapping[str, Any]:
    path = os.environ.get(CONFIG_VARIABLE)
    if not path or not name:
        return {}
    try:
        document = plain(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{CONFIG_VARIABLE}={path}: cannot be read: {error}") from error
    values = document.get(name) or {} if isinstance(document, dict) else None
    if not isinstance(values, dict):
        raise SettingsError(f"{CONFIG_VARIABLE}={path}: write a map of sections, each a map of settings")
    unknown = sorted(set(values) - set(settings_cls.model_fields))
    if unknown:
        known = ", ".join(sorted(settings_cls.model_fields))
        raise SettingsError(f"{CONFIG_VARIABLE}={path}: {name}.{unknown[0]} is not a setting; there are {known}")
    return values


class ProcessSettings(FleetSettings):
    """What every service process has besides Kafka and its own settings."""

    section: ClassVar[str] = "process"
    model_config = SettingsConfigDict(env_prefix="GPUFLEET_", extra="ignore")

    http_host: str = Field("0.0.0.0", description="where /livez, /readyz and /metrics are served")
    http_port: int = Field(8080, ge=0, le=65535, description="0 takes a free port")
    instance: str = Field("", description="unique name of this process; default: host, process id, random digits")
    create_topics: bool = Field(False, description="create missing topics at start, for try-outs")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="what is logged at least")
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal")
