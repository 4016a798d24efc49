"""The main function of a service process: settings, logs, run until a signal; errors in plain words."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from gpufleet.bus.admin import TopicsMissing, TopicsRefused
from gpufleet.bus.broker import BusUnavailable
from gpufleet.bus.http import AddressTaken
from gpufleet.bus.runner import ServiceRunner, run_until_signal
from gpufleet.bus.service import Service
from gpufleet.bus.settings import KafkaSettings
from gpufleet.telemetry import logs, memory
from gpufleet.telemetry.settings import ProcessSettings, SettingsError

USAGE, UNREACHABLE = 2, 3
_HELP = """usage: gpufleet-{name} [--print-config]

Runs {name} until SIGTERM or SIGINT. It has no arguments: settings come from environment variables that start with
GPUFLEET_ and from the YAML file that GPUFLEET_CONFIG names. --print-config shows what they are, and ends.
"""


def runner_for(service: Service, kafka: KafkaSettings, process: ProcessSettings) -> ServiceRunner:
    """Returns the runner of a service as a process of its own has it."""
    return ServiceRunner(
        service,
        kafka=kafka,
        host=process.http_host,
        port=process.http_port,
        instance=process.instance or None,
        create_topics=process.create_topics,
    )


def main(name: str, settings_type: type[BaseSettings], build: Callable[..., Service]) -> None:
    """Runs a service until SIGTERM or SIGINT. `--print-config` shows the settings and ends, `--help` how it is used.

    Ends with 0 after a graceful stop, 2 for bad settings, 3 where Kafka cannot be reached, 1 for anything else.
    """
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(_HELP.format(name=name), end="")  # noqa: T201
        return
    try:
        kafka, process, own = KafkaSettings(), ProcessSettings(), settings_type()
    except (ValidationError, SettingsError) as error:
        sys.exit(_say(name, _problems(error, (KafkaSettings, ProcessSettings, settings_type)), USAGE))
    if "--print-config" in sys.argv[1:]:
        sections = {"kafka": kafka, "process": process, name: own}
        print(json.dumps({k: s.model_dump(mode="json") for k, s in sections.items()}, indent=2))  # noqa: T201
        return
    if sys.argv[1:]:
        sys.exit(_say(name, f"unknown argument {sys.argv[1]}; there is --print-config", USAGE))
    logs.configure(level=process.log_level, format_=process.log_format, service=name)
    memory.own()
    try:
        asyncio.run(run_until_signal([runner_for(build(own), kafka, process)]))
    except (BusUnavailable, TopicsMissing, TopicsRefused) as error:
        sys.exit(_say(name, str(error), UNREACHABLE))
    except AddressTaken as error:
        sys.exit(_say(name, str(error), USAGE))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(1)


def _problems(error: ValidationError | SettingsError, classes: Sequence[type[BaseSettings]]) -> str:
    """Returns what is wrong, with the variable and (in parentheses) the file's name of each setting."""
    if isinstance(error, SettingsError):
        return str(error)
    (settings,) = [c for c in classes if c.__name__ == error.title]
    prefix, section = settings.model_config.get("env_prefix", ""), getattr(settings, "section", "")
    found = []
    for problem in error.errors():
        field = ".".join(map(str, problem["loc"]))
        where = f"{prefix}{field.upper()} ({section}.{field})" if field else section
        found.append(f"{where}: {problem['msg']}")
    return "; ".join(found)


def _say(name: str, text: str, code: int) -> int:
    print(f"gpufleet-{name}: {text}", file=sys.stderr)  # noqa: T201
    return code
