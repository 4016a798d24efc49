"""Makes the Grafana board: `python deploy/grafana/board.py` writes `dashboards/gpufleet.json` next to it.

A board in JSON is a thousand lines of which twenty say something; these are the twenty.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent / "dashboards" / "gpufleet.json"
SERVICES = ("inventory", "scheduler", "dispatcher", "rescheduler")
WIDTH = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
IN_CLUSTER = 'cluster=~"$cluster"'

Json = dict[str, Any]


@dataclass(frozen=True)
class Panel:
    """``queries`` are (expression, legend). ``text`` says how to read it."""

    title: str
    queries: Sequence[tuple[str, str]]
    text: str
    kind: str = "timeseries"  # or stat
    unit: str = "short"
    width: int = 8
    height: int = 8
    stack: bool = False


@dataclass(frozen=True)
class Row:
    """A heading and the panels below it."""

    title: str
    panels: Sequence[Panel] = field(default_factory=tuple)


def each(noun: str, template: str = "{metric}", legend: str = "") -> list[tuple[str, str]]:
    """Returns a query for every service; ``{metric}`` in the template is the metric of that service."""
    return [(template.replace("{metric}", f"gpufleet_{service}_{noun}"), f"{service}{legend}") for service in SERVICES]


ROWS = (
    Row(
        "Fleet",
        (
            Panel(
                "Clusters",
                [("sum by (health) (gpufleet_inventory_clusters)", "{{health}}")],
                "Registered clusters by what inventory knows of their API.",
                kind="stat",
                width=6,
                height=6,
            ),
            Panel(
                "GPUs in use",
                [
                    (
                        f'1 - sum(gpufleet_inventory_gpus{{state="free",{IN_CLUSTER}}}) / '
                        f'sum(gpufleet_inventory_gpus{{state="total",{IN_CLUSTER}}})',
                        "in use",
                    )
                ],
                "Share of all GPUs that is not free; GPUs of cordoned and broken nodes count as in use.",
                kind="stat",
                unit="percentunit",
                width=6,
                height=6,
            ),
            Panel(
                "GPUs free",
                [(f'sum(gpufleet_inventory_gpus{{state="free",{IN_CLUSTER}}})', "free")],
                "A sum: whether a pod fits is up to the largest free block.",
                kind="stat",
                width=6,
                height=6,
            ),
            Panel(
                "GPUs that could be created",
                [(f'sum(gpufleet_inventory_gpus{{state="elastic",{IN_CLUSTER}}})', "elastic")],
                "Of nodes that elastic pools may still add: the smaller of pool size and stock.",
                kind="stat",
                width=6,
                height=6,
            ),
            Panel(
                "Free GPUs by cluster",
                [
                    (
                        f'sum by (cluster, resource) (gpufleet_inventory_gpus{{state="free",{IN_CLUSTER}}})',
                        "{{cluster}} {{resource}}",
                    )
                ],
                "Free GPUs on usable nodes.",
                stack=True,
            ),
            Panel(
                "Largest free block",
                [
                    (
                        f"max by (cluster, resource) (gpufleet_inventory_largest_free_block_gpus{{{IN_CLUSTER}}})",
                        "{{cluster}} {{resource}}",
                    )
                ],
                "Most GPUs free on one node: a pod that needs more has to wait, however many are free in all.",
            ),
            Panel(
                "Silence of the clusters' APIs",
                [(f"max by (cluster) (gpufleet_inventory_silence_seconds{{{IN_CLUSTER}}})", "{{cluster}}")],
                "Since the API last answered. After 30 s the cluster gets no new replicas, after unreachable_after its "
                "replicas move.",
                unit="s",
            ),
            Panel(
                "Snapshots",
                [("sum(rate(gpufleet_inventory_snapshots_total[1m]))", "per second")],
                "Snapshots of all clusters that were published.",
                unit="ops",
                width=12,
            ),
            Panel(
                "Lists needed again",
                [(f"sum by (cluster) (increase(gpufleet_inventory_relists_total{{{IN_CLUSTER}}}[5m]))", "{{cluster}}")],
                "Watches that broke so that everything had to be listed anew, in 5 minutes.",
                width=12,
            ),
        ),
    ),
    Row(
        "Queue",
        (
            Panel(
                "Workloads by verdict",
                [("max by (verdict) (gpufleet_scheduler_workloads)", "{{verdict}}")],
                "Instances that stand by know the same workloads, so the maximum is shown and not the sum.",
                stack=True,
                width=12,
            ),
            Panel(
                "Decision time",
                [
                    (
                        f"histogram_quantile({q}, sum by (le) (rate(gpufleet_scheduler_decision_seconds_bucket[5m])))",
                        f"p{q * 100:g}",
                    )
                    for q in (0.5, 0.9, 0.99)
                ],
                "One batch of events.",
                unit="s",
                width=12,
            ),
            Panel(
                "Outcomes of decisions",
                [("sum by (outcome) (rate(gpufleet_scheduler_outcomes_total[1m]))", "{{outcome}}")],
                "What the scheduler did, per second.",
                unit="ops",
            ),
            Panel(
                "Events that wait for a decision",
                [("sum(gpufleet_scheduler_queued_events)", "events")],
                "More than a few for long: the scheduler cannot keep up.",
            ),
            Panel(
                "Evictions",
                [
                    ("sum by (reason) (increase(gpufleet_rescheduler_evictions_total[5m]))", "{{reason}}"),
                    ("sum(increase(gpufleet_rescheduler_held_back_total[5m]))", "held back"),
                ],
                "Shares of clusters that the rescheduler took back in 5 minutes, and moves that its rate put off.",
            ),
        ),
    ),
    Row(
        "Dispatch",
        (
            Panel(
                "From assignment to object",
                [
                    (
                        f"histogram_quantile({q}, sum by (le) (rate(gpufleet_dispatcher_apply_seconds_bucket[5m])))",
                        f"p{q * 100:g}",
                    )
                    for q in (0.5, 0.9, 0.99)
                ],
                "From the record of an assignment to its object in the cluster.",
                unit="s",
            ),
            Panel(
                "Objects written",
                [
                    (f"sum by (cluster) (rate(gpufleet_dispatcher_applies_total{{{IN_CLUSTER}}}[1m]))", "{{cluster}}"),
                    (f"sum(rate(gpufleet_dispatcher_deletes_total{{{IN_CLUSTER}}}[1m]))", "deleted, all clusters"),
                ],
                "Created, updated, deleted per second.",
                unit="ops",
            ),
            Panel(
                "Workloads that wait to be looked at",
                [(f"sum by (cluster) (gpufleet_dispatcher_queue_depth{{{IN_CLUSTER}}})", "{{cluster}}")],
                "A cluster that is away or slow delays only its own.",
            ),
            Panel(
                "Refused",
                [
                    (
                        f"sum by (cluster) (increase(gpufleet_dispatcher_refused_total{{{IN_CLUSTER}}}[5m]))",
                        "{{cluster}}",
                    )
                ],
                "Objects that a cluster's API does not take, in 5 minutes.",
            ),
            Panel(
                "Attempts that failed",
                [
                    (
                        f"sum by (cluster) (increase(gpufleet_dispatcher_failures_total{{{IN_CLUSTER}}}[5m]))",
                        "{{cluster}}",
                    )
                ],
                "In 5 minutes. They are made again.",
            ),
            Panel(
                "Changes of others taken back",
                [
                    (
                        f"sum by (cluster) (increase(gpufleet_dispatcher_drift_corrections_total{{{IN_CLUSTER}}}[5m]))",
                        "{{cluster}}",
                    )
                ],
                "In 5 minutes. If it never ends, somebody in the cluster works against the dispatcher.",
            ),
        ),
    ),
    Row(
        "Services",
        (
            Panel(
                "Active scheduler",
                [("sum(gpufleet_scheduler_active)", "active")],
                "One instance decides, the others stand by.",
                kind="stat",
                width=6,
                height=6,
            ),
            Panel(
                "Shards held",
                each("owned_shards", "sum({metric})"),
                "Shards of the clusters (inventory, dispatcher: 16 in all), and leadership (1).",
                kind="stat",
                width=10,
                height=6,
            ),
            Panel(
                "Dead letters not written yet",
                each("dead_letters_pending_records", "sum({metric})"),
                "Only the instance in charge writes them.",
                kind="stat",
                width=8,
                height=6,
            ),
            Panel(
                "Consumer lag",
                each("consumer_lag_records", "sum by (feed) ({metric})", " {{feed}}"),
                "Records on the broker that were not read yet.",
            ),
            Panel(
                "Event loop lag",
                each("event_loop_lag_seconds", "max({metric})"),
                "How late the loop woke up. Above a third of the session time-out heartbeats are in danger.",
                unit="s",
            ),
            Panel(
                "Unreadable records",
                each(
                    "rejected_records_total", "sum by (topic, reason) (increase({metric}[5m]))", " {{topic}} {{reason}}"
                ),
                "In 5 minutes. `gpufleet dlq list` has those of the service that answers for the topic.",
            ),
            Panel(
                "Records published",
                each("published_records_total", "sum(rate({metric}[1m]))"),
                "Acknowledged by the broker, per second.",
                unit="ops",
            ),
            Panel(
                "Records not acknowledged",
                each("publish_failures_total", "sum(increase({metric}[5m]))"),
                "In 5 minutes. They are written again.",
            ),
            Panel(
                "Age of the last heartbeat",
                each("heartbeat_age_seconds", "max({metric})"),
                "Nothing is sent after two thirds of the session time-out.",
                unit="s",
            ),
        ),
    ),
)


def board() -> Json:
    """Returns the board."""
    return {
        "uid": "gpufleet",
        "title": "gpufleet",
        "description": "Fleet, queue and services. Made by deploy/grafana/board.py.",
        "tags": ["gpufleet"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables()},
        "annotations": {"list": []},
        "links": [],
        "panels": list(_panels()),
    }


def _variables() -> list[Json]:
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0},
        {
            "name": "cluster",
            "label": "Cluster",
            "type": "query",
            "datasource": DATASOURCE,
            "query": {"query": "label_values(gpufleet_inventory_silence_seconds, cluster)", "refId": "clusters"},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    ]


def _panels() -> Iterator[Json]:
    number, top = 0, 0
    for row in ROWS:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1},
            "panels": [],
        }
        top += 1
        left = tallest = 0
        for panel in row.panels:
            if left + panel.width > WIDTH:
                top, left, tallest = top + tallest, 0, 0
            number += 1
            yield _panel(panel, number, {"x": left, "y": top, "w": panel.width, "h": panel.height})
            left, tallest = left + panel.width, max(tallest, panel.height)
        top += tallest


def _panel(panel: Panel, number: int, place: Json) -> Json:
    defaults: Json = {"unit": panel.unit, "min": 0}
    options: Json
    if panel.kind == "stat":
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none", "textMode": "value_and_name"}
    else:
        defaults["custom"] = {
            "fillOpacity": 30 if panel.stack else 0,
            "stacking": {"mode": "normal" if panel.stack else "none"},
            "showPoints": "never",
        }
        options = {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": DATASOURCE, "expr": expression, "legendFormat": legend}
            for index, (expression, legend) in enumerate(panel.queries)
        ],
    }


def render() -> str:
    """Returns the board as it is committed."""
    return json.dumps(board(), indent=2) + "\n"


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
