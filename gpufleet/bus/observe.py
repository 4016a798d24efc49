"""Health checks and metrics that every service has."""

from __future__ import annotations

from gpufleet.bus.ownership import Ownership
from gpufleet.bus.service import Bus


def add_health(bus: Bus, ownership: Ownership | None) -> None:
    async def kafka() -> str | None:
        return None if await bus.broker.ping(timeout=2.0) else f"Kafka at {bus.settings.bootstrap} does not answer"

    def tables() -> str | None:
        if bus.tables.failure is not None:
            return f"reading has stopped: {bus.tables.failure}"
        return None if bus.tables.is_caught_up else "the topics are not read to their end yet"

    bus.health.add_live("reading", lambda: str(bus.tables.failure) if bus.tables.failure else None)
    bus.health.add_ready("kafka", kafka)
    bus.health.add_ready("tables", tables)
    if ownership is not None:
        member = ownership
        bus.health.add_ready(
            "group",
            lambda: None if member.joined else f"not a member of the group {member.group}: no heartbeat is accepted",
        )


def add_metrics(bus: Bus, ownership: Ownership | None) -> None:
    metrics, publisher = bus.metrics, bus.publisher
    feeds = {"tables": bus.tables} | ({"owned": bus.owned} if bus.owned is not None else {})
    metrics.gauge_of(
        "consumer_lag_records",
        "Records on the broker that have not been read yet",
        lambda: [((name,), feed.lag()) for name, feed in feeds.items()],
        ("feed",),
    )
    metrics.counter_of("published_records", "Records that the broker acknowledged", lambda: [((), publisher.sent)])
    metrics.counter_of("publish_failures", "Records that were not acknowledged", lambda: [((), publisher.failed)])
    metrics.gauge_of("publish_pending_records", "Records not yet acknowledged", lambda: [((), publisher.pending)])
    metrics.counter_of(
        "rejected_records",
        "Records that could not be read",
        lambda: [((topic, reason), count) for (topic, reason), count in sorted(bus.dead_letters.rejected.items())],
        ("topic", "reason"),
    )
    metrics.gauge_of(
        "dead_letters_pending_records",
        "Dead letters that are not written yet",
        lambda: [((), bus.dead_letters.pending)],
    )
    if ownership is not None:
        member = ownership
        metrics.gauge_of(
            "owned_shards", "Shards held (leadership counts as one)", lambda: [((), float(len(member.held)))]
        )
        metrics.gauge_of(
            "heartbeat_age_seconds",
            "Since the last heartbeat that the group accepted",
            lambda: [((), member.lease.age)],
        )
