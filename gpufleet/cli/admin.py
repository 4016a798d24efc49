"""`gpufleet topics`, `dlq` and `doctor`: looking after the log."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from gpufleet.bus import dlq
from gpufleet.bus.admin import TopicsRefused, adopt_shards, connect_admin, missing
from gpufleet.bus.admin import apply as apply_topics
from gpufleet.bus.admin import diff as diff_topics
from gpufleet.bus.broker import BusUnavailable
from gpufleet.bus.records import Record, printable
from gpufleet.bus.settings import KafkaSettings
from gpufleet.bus.topics import DLQ_SUFFIX, Registry, load_registry
from gpufleet.cli.errors import CliError, Exit
from gpufleet.cli.live import client, tables
from gpufleet.cli.output import Format, age, note, out, show_json, table
from gpufleet.model.cluster import Health


async def topics(kafka: KafkaSettings, *, apply: bool) -> None:
    """Shows how the broker differs from the registry, or brings it in line. Exit code 1: `diff` found differences."""
    registry = load_registry(prefix=kafka.topic_prefix, shards=kafka.shards)
    async with connect_admin(kafka) as admin:
        await adopt_shards(admin, registry, kafka)
        try:
            if apply:
                done = await apply_topics(admin, registry, replication_factor=kafka.replication_factor)
                for item in done:
                    out(str(item))
                if not done:
                    out("nothing to do: the broker is in line with the registry")
                return
            found = await diff_topics(admin, registry)
            for name in strangers(await admin.list_topics(), registry):
                note(f"warning: {_nobody_reads(name, registry)}")
        except TopicsRefused as error:
            raise CliError(str(error), Exit.FAILED) from error
    for item in found:
        out(str(item))
    if found:
        raise CliError(f"{len(found)} differences; `gpufleet topics apply` makes them", Exit.FAILED)
    out("the broker is in line with the registry")


def strangers(there: Iterable[str], registry: Registry) -> list[str]:
    """Returns topics that are named as ours are and are not in the registry, such as one of another version."""
    known = {topic.name for topic in registry}
    return sorted(name for name in there if name.startswith(f"{registry.prefix}gpufleet.") and name not in known)


def _nobody_reads(name: str, registry: Registry) -> str:
    base = re.sub(r"\.v\d+$", "", name)
    return f"{name} is no topic of this version, nobody reads it" + (
        f"; produce to {base}" if base in registry else ": delete it, or correct the name in the producer"
    )


# -- dead letters ----------------------------------------------------------------------------------------------------


async def letters(kafka: KafkaSettings) -> list[dlq.DeadLetter]:
    """Returns all dead letters in the order of their topics."""
    registry = load_registry(prefix=kafka.topic_prefix)
    shorts = [topic.short for topic in registry if topic.name.endswith(DLQ_SUFFIX)]
    records: list[Record] = []
    async with client(kafka, reads=shorts, sink=records.extend):
        pass
    return dlq.fold(sorted(records, key=lambda r: (r.topic, r.partition, r.offset)))


async def dlq_list(kafka: KafkaSettings, format_: Format, *, everything: bool) -> None:
    """Lists dead letters that nobody has dealt with, or all."""
    found = [letter for letter in await letters(kafka) if everything or letter.state == "open"]
    if format_ is Format.JSON:
        show_json([_letter_document(letter) for letter in found])
    elif format_ is Format.NAME:
        for letter in found:
            out(letter.origin)
    else:
        rows = [
            [
                x.origin,
                "-" if x.key is None else printable(x.key),
                x.reason,
                age(time.time() - x.first_seen),
                x.state,
                x.error,
            ]
            for x in found
        ]
        table(["origin", "key", "reason", "age", "state", "error"], rows)


async def dlq_show(kafka: KafkaSettings, origin: str) -> None:
    """Shows one dead letter with its value."""
    letter = _find(await letters(kafka), origin)
    for name, value in _letter_document(letter).items():
        text = " ".join(f"{n}={t}" for n, t in value.items()) if name == "headers" else value
        if name != "value":
            out(f"{name + ':':12} {'-' if text in (None, '') else text}")
    out()
    out("(no value: a tombstone)" if letter.value is None else letter.value.decode("utf-8", "backslashreplace"))


async def dlq_replay(
    kafka: KafkaSettings,
    origins: Sequence[str],
    *,
    value: bytes | None,
    key: str | None,
    headers: Sequence[str],
    everything: bool,
) -> None:
    """Produces dead letters to their topics again, repaired where a value, a key or headers (NAME=TEXT) are given."""
    changed = _headers(headers)
    found = await letters(kafka)
    chosen = [x for x in found if x.state == "open"] if everything else [_find(found, origin) for origin in origins]
    if (value is not None or key or changed) and len(chosen) != 1:
        raise CliError("--value, --key and --header repair one record: name one origin")
    async with client(kafka) as opened:
        for letter in chosen:
            kept = {name: text for name, text in {**letter.headers, **changed}.items() if text}
            try:
                dlq.replay(opened.publisher, replace(letter, headers=kept), value=value, key=key)
            except dlq.DeadLetterError as error:
                raise CliError(str(error)) from error
            out(f"{letter.origin} replayed")


def _headers(options: Sequence[str]) -> dict[str, str]:
    """Returns headers by name; one without a text is to be left out."""
    found: dict[str, str] = {}
    for option in options:
        name, sign, text = option.partition("=")
        if not name or not sign:
            raise CliError(f"--header {option}: write NAME=TEXT, or NAME= to leave a header out")
        found[name] = text
    return found


async def dlq_drop(kafka: KafkaSettings, origins: Sequence[str]) -> None:
    """Notes that nothing more will be done about dead letters."""
    found = await letters(kafka)
    chosen = [_find(found, origin) for origin in origins]
    async with client(kafka) as opened:
        for letter in chosen:
            dlq.drop(opened.publisher, letter)
            out(f"{letter.origin} dropped")


def _find(found: Sequence[dlq.DeadLetter], origin: str) -> dlq.DeadLetter:
    for letter in found:
        if letter.origin == origin:
            return letter
    raise CliError(f"no dead letter {origin}; `gpufleet dlq list --all` lists them (topic/partition/offset)")


def _letter_document(letter: dlq.DeadLetter) -> dict[str, Any]:
    return {
        "origin": letter.origin,
        "key": None if letter.key is None else printable(letter.key),
        "reason": letter.reason,
        "error": letter.error,
        "path": letter.path,
        "state": letter.state,
        "attempts": letter.attempts,
        # The client that wrote the letter adds headers of its own.
        "headers": {n: printable(t) for n, t in sorted(letter.headers.items()) if t and n != "correlation_id"},
        "value": None if letter.value is None else letter.value.decode("utf-8", "backslashreplace"),
    }


# -- doctor ----------------------------------------------------------------------------------------------------------


async def doctor(kafka: KafkaSettings, services: Sequence[str]) -> None:
    """Looks at everything that has to work, and says what to do about what does not; then the exit code is 1."""
    rows: list[list[str]] = []
    try:
        async with connect_admin(kafka) as admin:
            rows.append(["ok", "kafka", f"{kafka.bootstrap} answers"])
            registry = load_registry(prefix=kafka.topic_prefix)
            absent = await missing(admin, registry, [topic.name for topic in registry])
            unread = strangers(await admin.list_topics(), registry)
    except BusUnavailable as error:
        table(["", "what", "finding"], [["FAIL", "kafka", str(error)]])
        raise CliError("Kafka cannot be reached", Exit.UNREACHABLE) from error
    if absent:
        rows.append(["FAIL", "topics", f"{len(absent)} are missing ({absent[0]}, …): gpufleet topics apply"])
    else:
        rows.append(["ok", "topics", "all there"])
        rows += await _tables(kafka)
    rows += [["warn", "topics", _nobody_reads(name, registry)] for name in unread]
    rows += [await asyncio.to_thread(_probe, url) for url in services]
    table(["", "what", "finding"], rows)
    if any(row[0] == "FAIL" for row in rows):
        raise CliError("something is wrong, see above", Exit.FAILED)


async def _tables(kafka: KafkaSettings) -> list[list[str]]:
    rows = []
    async with tables(kafka, ("clusters", "inventory", "epochs", "placements")) as view:
        claims = sorted(k for k in view.records.get("epochs", {}) if "/" not in k and k != "log")
        for service in ("scheduler", "rescheduler"):
            known = service in claims
            finding = "has claimed" if known else f"never claimed: is gpufleet-{service} running?"
            rows.append(["ok" if known else "FAIL", service, finding])
        registrations = [r.name for r in view.registrations()]
        if not registrations:
            rows.append(["warn", "clusters", "none registered: gpufleet apply -f cluster.yaml"])
        for name in registrations:
            inventory = view.inventories.get(name)
            if inventory is None:
                rows.append(["FAIL", f"cluster {name}", "no inventory: is gpufleet-inventory running?"])
            elif inventory.health is not Health.READY:
                rows.append(["FAIL", f"cluster {name}", inventory.message or inventory.health.value])
            else:
                seen = time.time() - inventory.observed_at
                stale = seen > 30
                text = f"last snapshot {age(seen)} ago" + (": too old for new replicas" if stale else "")
                rows.append(["FAIL" if stale else "ok", f"cluster {name}", text])
        unplaced = [p.workload for p in view.placements() if p.unplaced]
        if unplaced:
            rows.append(["warn", "workloads", f"{len(unplaced)} not fully placed: gpufleet explain {unplaced[0]}"])
    open_letters = [x for x in await letters(kafka) if x.state == "open"]
    if open_letters:
        rows.append(["warn", "dead letters", f"{len(open_letters)} open: gpufleet dlq list"])
    return rows


def _probe(url: str) -> list[str]:
    address = url if "://" in url else f"http://{url}"
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/readyz", timeout=3) as response:  # noqa: S310
            return ["ok", address, f"ready ({response.status})"]
    except urllib.error.HTTPError as error:
        return ["FAIL", address, error.read(500).decode(errors="replace").strip()]
    except (OSError, ValueError) as error:
        return ["FAIL", address, f"no answer: {error}"]
