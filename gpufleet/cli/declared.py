"""Kinds that are declared on the fleet, brought to its simulated clusters; on real ones an operator is installed."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gpufleet.bus.settings import KafkaSettings
from gpufleet.cli.live import Tables, tables
from gpufleet.model.names import KIND_PREFIX
from gpufleet.wire import yaml
from gpufleet.wire.errors import RecordError
from gpufleet.wire.records import policy_manifest

# Nobody waits for it, and the embedded broker pays for every look.
_FETCH_WAIT_MS = 500


async def follow(kafka: KafkaSettings, kubeconfig: Path, url: str, token: str, say: Callable[[str], None]) -> None:
    """Tells the simulation at ``url`` of every declared kind, those to come included, until cancelled."""
    trusted = ssl.create_default_context(cadata=_authority(kubeconfig))
    told: dict[str, bytes | None] = {}
    async with tables(kafka.model_copy(update={"fetch_wait_ms": _FETCH_WAIT_MS}), ("policies",)) as view:
        while True:
            await view.until(lambda: bool(_untold(view, told)), None)
            for key, manifest in _untold(view, told).items():
                told[key] = view.records["policies"][key].value
                answer = await asyncio.to_thread(_put, f"{url}/control/kinds", manifest, token, trusted)
                name = key.removeprefix(KIND_PREFIX)
                say(answer or f"simulated clusters serve the kind {name}")


def _untold(view: Tables, told: Mapping[str, bytes | None]) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for key, record in sorted(view.records.get("policies", {}).items()):
        if key.startswith(KIND_PREFIX) and (key not in told or told[key] != record.value):
            try:
                found[key] = policy_manifest(record)[0]
            except RecordError:
                continue  # the scheduler says so
    return found


def _put(url: str, manifest: Mapping[str, Any], token: str, trusted: ssl.SSLContext) -> str:
    """Returns what went wrong, if anything."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(manifest).encode(), headers, method="PUT")  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30, context=trusted):  # noqa: S310  our own address
            return ""
    except urllib.error.HTTPError as error:
        return f"the simulated clusters refuse a declared kind: {error.read(500).decode(errors='replace').strip()}"
    except OSError as error:
        return f"the simulated clusters cannot be told of a declared kind: {error}"


def _authority(kubeconfig: Path) -> str:
    document = yaml.plain(kubeconfig.read_text(encoding="utf-8"))
    return base64.b64decode(document["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
