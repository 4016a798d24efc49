"""`settings` of a Scenario document: what it changes of the services' settings, and of how clusters behave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from gpufleet.wire.documents_parts import read_duration
from gpufleet.wire.documents_schema import Findings, nearest
from services.inventory.core.snapshot import Timing
from services.rescheduler.core import Limits
from services.scheduler.core.settings import Settings
from sim.model.cluster import Behaviour


@dataclass(frozen=True, slots=True)
class ScenarioSettings:
    """The defaults are those of the services, and clusters that do everything at once."""

    inventory: Timing = field(default_factory=Timing)
    scheduler: Settings = field(default_factory=Settings)
    rescheduler: Limits = field(default_factory=Limits)
    clusters: Behaviour = field(default_factory=Behaviour)


class _Setting(NamedTuple):
    """Where a setting goes. Durations of 0 are taken only where something still comes to an end with them."""

    part: str
    field: str
    positive: bool = False
    whole: bool = False


SETTINGS: Mapping[str, _Setting] = {
    "heartbeat": _Setting("inventory", "heartbeat", positive=True),
    "unreachableAfter": _Setting("inventory", "unreachable_after", positive=True),
    "provisionTimeout": _Setting("inventory", "provision_timeout", positive=True),
    "staleAfter": _Setting("scheduler", "stale_after", positive=True),
    "holdTimeout": _Setting("scheduler", "hold_timeout", positive=True),
    "provisionRetry": _Setting("scheduler", "provision_retry"),
    "retryInitial": _Setting("scheduler", "retry_initial", positive=True),
    "retryMax": _Setting("scheduler", "retry_max", positive=True),
    "overtakeAfter": _Setting("scheduler", "overtake_after", positive=True),
    "checkEvery": _Setting("rescheduler", "check_every", positive=True),
    "pendingAfter": _Setting("rescheduler", "pending_after"),
    "coolDown": _Setting("rescheduler", "cool_down"),
    "maxRedispatch": _Setting("rescheduler", "max_redispatch", whole=True),
    "backoffFirst": _Setting("rescheduler", "backoff_first"),
    "backoffMost": _Setting("rescheduler", "backoff_most"),
    "movesPerMinute": _Setting("rescheduler", "moves_per_minute", positive=True, whole=True),
    "readyAfter": _Setting("clusters", "ready_after"),
    "stopAfter": _Setting("clusters", "stop_seconds"),
    "nodeIdleAfter": _Setting("clusters", "idle_seconds"),
    "nodeGrace": _Setting("clusters", "grace_seconds"),
    "nodeEvictionAfter": _Setting("clusters", "eviction_seconds"),
}


def read_settings(given: Mapping[str, Any], findings: Findings) -> ScenarioSettings:
    """Returns the settings that a document gives over the defaults; what is wrong is noted and left out."""
    changed: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        path = f"settings.{name}"
        known = SETTINGS.get(name)
        if known is None:
            near = nearest(name, list(SETTINGS))
            hint = f"did you mean {near}?" if near else f"known are {', '.join(sorted(SETTINGS))}"
            findings.error(path, "is not a setting of scenarios", hint)
            continue
        before = len(findings.errors)
        amount = _count(value, path, findings) if known.whole else read_duration(value, path, findings)
        if len(findings.errors) > before:
            continue
        if known.positive and amount <= 0:
            findings.error(path, "must be more than 0")
            continue
        changed.setdefault(known.part, {})[known.field] = amount
    settings = ScenarioSettings()
    return replace(settings, **{part: replace(getattr(settings, part), **values) for part, values in changed.items()})


def _count(value: Any, path: str, findings: Findings) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        findings.error(path, f"is {value!r}", "write a whole number, 0 or more")
        return 0
    return value
