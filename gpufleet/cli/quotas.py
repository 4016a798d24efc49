"""`gpufleet get quotas`: guarantees and ceilings of the quota tree, what is used, and who waits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gpufleet.cli.errors import CliError
from gpufleet.cli.live import Tables
from gpufleet.cli.output import Format, note, out, show_json, table
from gpufleet.model.quantity import render
from gpufleet.model.quota import MAX_JOBS
from gpufleet.wire.documents import Document, Parsed, parse_documents
from gpufleet.wire.yaml import dump
from services.scheduler.core.quota import Quotas
from services.scheduler.core.quota_node import Node


def show_quotas(view: Tables, names: Sequence[str], format_: Format) -> None:
    """Lists the quotas of the fleet's tree, parents first, each with the usage below it."""
    manifests = [*view.policies(), *view.workloads()]
    parsed = parse_documents([Document("the fleet", n, 0, manifest) for n, manifest in enumerate(manifests, 1)])
    quotas = usage(parsed, view)
    if quotas.root is None:
        note("there is no ElasticQuotaTree: nothing is bounded; `gpufleet apply` takes one")
    waiting = _waiting(quotas, view)
    nodes = [] if quotas.root is None else quotas.root.walk()
    found = [node for node in nodes if not names or node.name in names]
    missing = sorted(set(names) - {node.name for node in found})
    if missing:
        raise CliError(f"no quota {', '.join(missing)}; `gpufleet get quotas -o name` lists what is there")
    match format_:
        case Format.JSON:
            show_json([_document(node, waiting) for node in found])
        case Format.YAML:
            out(dump([_document(node, waiting) for node in found]).rstrip("\n"))
        case Format.NAME:
            for node in found:
                out(node.name)
        case _:
            table(["quota", "resource", "used", "min", "max", "jobs", "waiting"], list(_rows(found, waiting)))


def usage(parsed: Parsed, view: Tables) -> Quotas:
    """Returns the quotas, charged with what is placed."""
    quotas = Quotas()
    for tree in parsed.quota_trees.values():
        quotas.put(tree)
    for placement in view.placements():
        quotas.update(placement.workload, parsed.workloads.get(placement.workload), placement)
    return quotas


def _waiting(quotas: Quotas, view: Tables) -> dict[str, int]:
    """Returns how many workloads wait in the queue of each quota, for whatever, those of the quotas below included."""
    counts: dict[str, int] = {}
    for placement in view.placements():
        leaf = quotas.leaf(placement.queue) if placement.queue_position is not None else None
        for node in leaf.path if leaf is not None else ():
            counts[node.name] = counts.get(node.name, 0) + 1
    return counts


def _rows(found: Iterable[Node], waiting: dict[str, int]) -> Iterator[list[str]]:
    for node in found:
        first = True
        for name in _resources(node):
            row = [node.name if first else "", name, render(node.used.get(name, 0), name)]
            row += [_amount(node.min, name), _amount(node.max, name)]
            most = node.max.get(MAX_JOBS)
            jobs = str(node.jobs) if most is None else f"{node.jobs}/{render(most, MAX_JOBS)}"
            yield [*row, jobs if first else "", str(waiting.get(node.name, 0)) if first else ""]
            first = False


def _resources(node: Node) -> list[str]:
    return sorted((node.min.keys() | node.max.keys() | node.used.keys()) - {MAX_JOBS})


def _amount(amounts: dict[str, int], name: str) -> str:
    return render(amounts[name], name) if name in amounts else "-"


def _document(node: Node, waiting: dict[str, int]) -> dict[str, Any]:
    def amounts(found: dict[str, int]) -> dict[str, str]:
        return {name: render(amount, name) for name, amount in sorted(found.items())}

    return {
        "quota": node.name,
        "parent": node.parent.name if node.parent is not None else "",
        "namespaces": list(node.quota.namespaces),
        "min": amounts(node.min),
        "max": amounts(node.max),
        "used": amounts(node.used),
        "notPreemptible": amounts(node.firm),
        "jobs": node.jobs,
        "waiting": waiting.get(node.name, 0),
    }
