"""The generated parts of the services' READMEs: topics, settings, metrics."""

from __future__ import annotations

from gpufleet.bus.topics import Registry, load_registry
from gpufleet.cli.reference.markdown import code, table
from gpufleet.cli.reference.metrics import build, metrics_table
from gpufleet.cli.reference.settings import classes, settings_table


def parts(service: str) -> dict[str, str]:
    """Returns what goes into a service's README, by the names of its places."""
    return {
        "topics": topics_table(service, load_registry()),
        "settings": settings_table(classes()[service]),
        "metrics": metrics_table(service),
    }


def topics_table(service: str, registry: Registry) -> str:
    """Returns the topics that a service reads (from the service) and writes (from the registry)."""
    built = build(service)
    rows = []
    for topic in registry:
        if topic.name.endswith(".dlq"):
            continue
        ways = []
        if topic.short in built.reads or topic.short == "epochs":
            ways.append("reads whole")
        if topic.short in built.owns:
            ways.append("reads its shards")
        if service in topic.written_by:
            ways.append("writes")
        if topic.dlq == service:
            ways.append(f"puts unreadable records on {code(topic.name + '.dlq')}")
        if ways:
            rows.append((code(topic.name), code(topic.key.replace("|", "or")), ", ".join(ways), topic.description))
    return table(("topic", "key", "this service", "what it holds"), rows)
