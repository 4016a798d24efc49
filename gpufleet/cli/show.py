"""`gpufleet get`, `describe` and `explain`: what the fleet is like, and why."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from gpufleet.bus.settings import KafkaSettings
from gpufleet.cli import files
from gpufleet.cli.errors import CliError
from gpufleet.cli.live import Tables, tables
from gpufleet.cli.output import Format, age, note, out, show_documents, table
from gpufleet.cli.plan import show_placements, where
from gpufleet.cli.quotas import show_quotas
from gpufleet.cli.what import What
from gpufleet.model.cluster import Inventory, NodeClass
from gpufleet.model.explanations import REASONS
from gpufleet.model.placement import Observation, Placement
from gpufleet.model.quantity import render
from gpufleet.model.queueing import in_order
from gpufleet.model.reasons import Code, Reason, Verdict
from gpufleet.wire.documents import dump_cluster, dump_placement
from gpufleet.wire.yaml import Document

_WAITING = (Verdict.UNSCHEDULABLE, Verdict.PARTIALLY_SCHEDULED, Verdict.QUEUED, Verdict.SUSPENDED)
# How long `explain` looks for what would place a workload.
_SEARCH_SECONDS = 10.0
# So many of those that are ahead in a queue are named; the others are counted.
_NAMED = 5
_TOPICS = ("clusters", "policies", "workloads", "scales", "inventory", "placements", "observations")


async def get(kafka: KafkaSettings, what: What, names: Sequence[str], format_: Format, *, watch: bool) -> None:
    """Lists what there is, and with ``watch`` again after every change."""
    async with tables(kafka, _TOPICS) as view:
        _get(view, what, names, format_)
        while watch:
            await view.change()
            out()
            _get(view, what, names, format_)


def _get(view: Tables, what: What, names: Sequence[str], format_: Format) -> None:
    match what:
        case What.WORKLOADS | What.PLACEMENTS:
            found = [p for p in view.placements() if not names or p.workload in names]
            _missing(names, {p.workload for p in found}, "workload")
            if format_ in (Format.JSON, Format.YAML):
                show_documents([dump_placement(p, view.bound(p.workload)) for p in found], format_)
            elif what is What.WORKLOADS and format_ is not Format.NAME:
                _show_workloads(view, found, format_)
            else:
                show_placements(found, format_)
        case What.CLUSTERS:
            _show_clusters(view, names, format_)
        case What.POLICIES:
            _warn_of_policies(view)
            documents = [d for d in view.policies() if not names or _policy_key(d) in names]
            if format_ in (Format.JSON, Format.YAML):
                show_documents(documents, format_)
            elif format_ is Format.NAME:
                for document in documents:
                    out(_policy_key(document))
            else:
                table(["kind", "namespace", "name"], [_policy_key(d).split("/", 2) for d in documents])
        case What.FLEET:
            for key in view.unreadable("workloads"):
                note(f"warning: workload {key} is left out: its submission cannot be read, see `gpufleet dlq list`")
            _warn_of_policies(view)
            documents = fleet_documents(view)
            show_documents(documents, format_ if format_ in (Format.JSON, Format.YAML) else Format.YAML)
        case What.QUOTAS:
            show_quotas(view, names, format_)


def fleet_documents(view: Tables) -> list[dict[str, Any]]:
    """Returns all that `gpufleet plan` needs."""
    return [
        *(_cluster_documents(view)),
        *view.policies(),
        *view.workloads(),
        *(dump_placement(p, view.bound(p.workload), slots=True) for p in view.placements() if _standing(p)),
    ]


def _warn_of_policies(view: Tables, placement: Placement | None = None) -> None:
    """Names policies that cannot be read; with a placement, only those that may have to do with it."""
    lacking = placement is None or any(r.code is Code.NO_MATCHING_POLICY for r in placement.reasons)
    for key, error in view.unreadable("policies").items():
        if lacking or (placement is not None and placement.policy == key):
            note(
                f"warning: policy {key} cannot be read ({error}). The scheduler goes on with the one before it, "
                "if there was one, but only until it starts anew: apply a correct one, or see `gpufleet dlq list`"
            )


def _standing(placement: Placement) -> bool:
    return bool(placement.shares) and placement.verdict not in (Verdict.DELETING, Verdict.ORPHANED)


def _show_workloads(view: Tables, placements: Sequence[Placement], format_: Format) -> None:
    rows = []
    for placement in placements:
        ready = sum(o.ready for o in view.observed(placement.workload))
        row = [
            placement.workload,
            placement.verdict.value,
            f"{placement.placed}/{placement.replicas}",
            str(ready),
            where(placement) or "-",
            age(time.time() - placement.decided_at),
        ]
        if format_ is Format.WIDE:
            row += [placement.policy or "-", "; ".join(r.message for r in placement.reasons[:2]) or "-"]
        rows.append(row)
    headers = ["workload", "verdict", "placed", "ready", "clusters", "decided"]
    table(headers + (["policy", "reasons"] if format_ is Format.WIDE else []), rows)


def _show_clusters(view: Tables, names: Sequence[str], format_: Format) -> None:
    found = [r for r in view.registrations() if not names or r.name in names]
    _missing(names, {r.name for r in found}, "cluster")
    if format_ in (Format.JSON, Format.YAML):
        show_documents([dump_cluster(r, view.inventories.get(r.name)) for r in found], format_)
        return
    if format_ is Format.NAME:
        for registration in found:
            out(registration.name)
        return
    rows = []
    for registration in found:
        inventory, spec = view.inventories.get(registration.name), registration.spec
        row = [spec.name, _health(inventory), spec.provider or "-", spec.region or "-"]
        row += ["-", "-", "-"] if inventory is None else [str(_nodes(inventory)), _gpus(inventory), _elastic(inventory)]
        row.append("-" if inventory is None or not inventory.observed_at else age(time.time() - inventory.observed_at))
        if format_ is Format.WIDE:
            row += [",".join(f"{k}={v}" for k, v in spec.labels) or "-", inventory.message if inventory else "-"]
        rows.append(row)
    headers = ["cluster", "health", "provider", "region", "nodes", "gpus free", "elastic nodes", "seen"]
    table(headers + (["labels", "message"] if format_ is Format.WIDE else []), rows)


def _health(inventory: Inventory | None) -> str:
    return "Unknown" if inventory is None else inventory.health.value


def _nodes(inventory: Inventory) -> int:
    return sum(c.nodes for c in inventory.node_classes)


def gpu_resources(node_class: NodeClass) -> list[str]:
    """Returns the names of the resources that look like GPUs."""
    return [name for name, _ in node_class.allocatable if name.endswith("/gpu") or "/gpu-" in name]


def _gpus(inventory: Inventory) -> str:
    free = total = 0
    for node_class in inventory.node_classes:
        for name in gpu_resources(node_class):
            total += dict(node_class.allocatable).get(name, 0) * node_class.nodes
            free += sum(dict(block.free).get(name, 0) * block.nodes for block in node_class.free)
    return f"{free}/{total}"


def _elastic(inventory: Inventory) -> str:
    return str(sum(c.elastic.nodes for c in inventory.node_classes if c.elastic))


def _cluster_documents(view: Tables) -> list[dict[str, Any]]:
    return [dump_cluster(r, view.inventories.get(r.name)) for r in view.registrations()]


def _policy_key(document: dict[str, Any]) -> str:
    metadata = document.get("metadata") or {}
    return f"{document.get('kind')}/{metadata.get('namespace') or ''}/{metadata.get('name')}"


def _missing(wanted: Sequence[str], found: set[str], noun: str) -> None:
    missing = [name for name in wanted if name not in found]
    if missing:
        raise CliError(f"no {noun} {', '.join(missing)}; `gpufleet get {noun}s -o name` lists what is there")


# -- describe and explain ----------------------------------------------------------------------------------------------


async def describe(kafka: KafkaSettings, name: str) -> None:
    """Shows everything about a workload (namespace/Kind/name) or a cluster (its name)."""
    async with tables(kafka, _TOPICS) as view:
        if "/" in name:
            placement = _placement(view, name)
            _warn_of_policies(view, placement)
            _describe_workload(view, placement)
        else:
            _describe_cluster(view, name)


def _placement(view: Tables, workload: str) -> Placement:
    placement = view.placement(workload)
    if placement is None:
        submitted = workload in view.records.get("workloads", {})
        hint = (
            "it was submitted and not decided yet: is the scheduler running? (`gpufleet doctor`)"
            if submitted
            else "`gpufleet get workloads -o name` lists what is there, `gpufleet dlq list` what could not be read"
        )
        raise CliError(f"no decision about {workload}; {hint}")
    return placement


def _describe_workload(view: Tables, placement: Placement) -> None:
    out(f"Workload:  {placement.workload}")
    out(f"Verdict:   {placement.verdict.value}, {placement.placed} of {placement.replicas} placed")
    out(f"Policy:    {placement.policy or '-'}" + (f", group {placement.group}" if placement.group else ""))
    out(
        f"Decided:   {age(time.time() - placement.decided_at)} ago, epoch {placement.version.epoch}, version "
        f"{placement.version.version}"
    )
    observed = {o.cluster: o for o in view.observed(placement.workload)}
    rows = []
    for cluster in sorted({s.cluster for s in placement.shares} | set(observed)):
        share, seen = placement.share(cluster), observed.get(cluster)
        rows.append(
            [
                cluster,
                str(share.replicas if share else 0),
                ", ".join(f"{slot.count} {slot.source.value} on {slot.node_class}" for slot in share.slots)
                if share
                else "",
                str(view.bound(placement.workload).get(cluster, 0)),
                str(seen.ready) if seen else "-",
                seen.phase.value if seen else "-",
                (seen.message or seen.health.value) if seen else "-",
            ]
        )
    if rows:
        out()
        table(["cluster", "replicas", "room", "bound", "ready", "phase", "state"], rows)
    reasons_table(placement)


def reasons_table(placement: Placement) -> None:
    """Prints the reasons of a placement, if it has any."""
    if placement.reasons:
        out()
        table(
            ["cluster", "reason", "message"], [[r.cluster or "-", r.code.value, r.message] for r in placement.reasons]
        )


def _describe_cluster(view: Tables, name: str) -> None:
    registration = next((r for r in view.registrations() if r.name == name), None)
    if registration is None:
        raise CliError(f"no cluster {name}; `gpufleet get clusters -o name` lists what is there")
    spec, inventory = registration.spec, view.inventories.get(name)
    out(f"Cluster:   {name}")
    out(f"Place:     {spec.provider or '-'}, region {spec.region or '-'}, zones {', '.join(spec.zones) or '-'}")
    out(f"Labels:    {', '.join(f'{k}={v}' for k, v in spec.labels) or '-'}")
    out(f"Taints:    {', '.join(f'{t.key}={t.value}:{t.effect}' for t in spec.taints) or '-'}")
    out(f"Health:    {_health(inventory)}{': ' + inventory.message if inventory and inventory.message else ''}")
    if inventory is None:
        out("Inventory: none yet; is inventory running, and can it reach the cluster?")
        return
    seen = f"seen {age(time.time() - inventory.observed_at)} ago" if inventory.observed_at else "not seen yet"
    out(f"Snapshot:  {inventory.snapshot.n} of epoch {inventory.snapshot.epoch}, {seen}")
    out()
    rows = []
    for node_class in inventory.node_classes:
        free = ", ".join(
            f"{block.nodes} x ({', '.join(f'{n} {render(a, n)}' for n, a in block.free)})" for block in node_class.free
        )
        elastic = f"{node_class.elastic.nodes} more" if node_class.elastic else "-"
        rows.append([node_class.name, str(node_class.nodes), elastic, free or "full"])
    table(["node class", "nodes", "elastic", "free blocks"], rows)
    if inventory.virtual_nodes:
        out()
        table(
            ["virtual node", "region", "stock"],
            [
                [
                    node.name,
                    dict(node.labels).get("topology.kubernetes.io/region", "-"),
                    "unlimited"
                    if node.stock is None
                    else ", ".join(f"{s.model}={s.gpus}" for s in node.stock) or "none",
                ]
                for node in inventory.virtual_nodes
            ],
        )
    held = [(p, share) for p in view.placements() if (share := p.share(name)) is not None]
    if held:
        out()
        table(["workload", "replicas", "verdict"], [[p.workload, s.replicas, p.verdict.value] for p, s in held])


async def explain(kafka: KafkaSettings, name: str, format_: Format) -> None:
    """Says why a workload is where it is: verdict first, evidence next, next step last."""
    async with tables(kafka, _TOPICS) as view:
        placement = _placement(view, name)
        _warn_of_policies(view, placement)
        fleet = [Document("the fleet", n, 0, manifest) for n, manifest in enumerate(fleet_documents(view), 1)]
        ahead = view.ahead(placement) if placement.queue_position is not None else []
        first = view.placement(ahead[0]) if ahead else None
        _explain(placement, ahead, first, view.bound(name), [o for o in view.observed(name) if o.code], fleet, format_)


def explain_documents(paths: Sequence[str], name: str, format_: Format, namespace: str) -> None:
    """Says why `plan` would put a workload of the documents where it does."""
    from sim.plan import plan

    documents = files.load(paths)
    parsed = files.parse(documents, namespace=namespace)
    placements = plan(parsed)
    placement = next((p for p in placements if p.workload == name), None)
    if placement is None:
        raise CliError(f"no workload {name} in {', '.join(paths)}; `gpufleet plan -o name` lists what is there")
    queue = in_order(placements).get(placement.queue, []) if placement.queue_position is not None else [name]
    ahead = queue[: queue.index(name)]
    first = next((p for p in placements if ahead and p.workload == ahead[0]), None)
    _explain(placement, ahead, first, {}, [], documents, format_)


def _explain(
    placement: Placement,
    ahead: Sequence[str],
    first: Placement | None,
    bound: Mapping[str, int],
    seen: Sequence[Observation],
    fleet: Sequence[Document],
    format_: Format,
) -> None:
    remedies = _remedies(placement, fleet)
    if format_ in (Format.JSON, Format.YAML):
        document = dump_placement(placement, bound, slots=True)
        show_documents([document | ({"remedies": remedies} if remedies else {})], format_)
        return
    out(sentence(placement))
    if ahead:
        more = f" and {len(ahead) - _NAMED} more" if len(ahead) > _NAMED else ""
        out(f"Ahead of it in the queue: {', '.join(ahead[:_NAMED])}{more}.")
        if first is not None and first.reasons:
            reason = first.reasons[0]
            out(f"{ahead[0]} waits because of {reason.code}: {_said(reason)}.")
    reasons_table(placement)
    if seen:
        out()
        table(["cluster", "phase", "reason", "message"], [[o.cluster, o.phase.value, o.code, o.message] for o in seen])
    if remedies:
        out()
        out("What would place it (each was tried by itself)")
        for remedy in remedies:
            out(f"  {remedy}")
        return
    if steps := next_steps(placement, seen):
        out()
        out("Next step")
        for step in steps:
            out(f"  {step}")


def _said(reason: Reason) -> str:
    return f"{reason.cluster}: {reason.message}" if reason.cluster else reason.message


def next_steps(placement: Placement, seen: Sequence[Observation]) -> list[str]:
    """Returns what helps: first with what clusters report, then with replicas that have no place."""
    found = [REASONS[Code(o.code)].remedy for o in seen if o.code in REASONS]
    if placement.unplaced or (seen and not found):
        found += [r.needs or REASONS[r.code].remedy for r in placement.reasons]
    return [step for step in dict.fromkeys(found) if step]


def _remedies(placement: Placement, fleet: Sequence[Document]) -> list[str]:
    """Returns what would place a workload that waits, as far as it is found in the time that somebody waits for it."""
    from gpufleet.wire.documents import DocumentErrors, parse_documents
    from sim.remedy import remedies

    if placement.verdict not in _WAITING:
        return []
    try:
        parsed = parse_documents(fleet)
    except DocumentErrors as error:
        note(f"warning: what would place it is not known: {error.errors[0]}")
        return []
    found, until = [], time.monotonic() + _SEARCH_SECONDS
    for remedy in remedies(parsed, placement.workload):
        found.append(remedy)
        if time.monotonic() > until:
            note("warning: the search for what would place it was cut short")
            break
    return found


def sentence(placement: Placement) -> str:
    """Returns the verdict in one sentence."""
    places = where(placement)
    text = f"{placement.workload} is {placement.verdict.value}: {placement.placed} of {placement.replicas} placed"
    if places:
        text += f" ({places})"
    if placement.policy:
        kind, _, name = placement.policy.partition("/")
        text += f" by {kind} {name.removeprefix('/')}" + (f", group {placement.group}" if placement.group else "")
    if placement.queue_position is not None:
        text += f", position {placement.queue_position} in the queue"
        text += f" of quota {placement.queue}" if placement.queue else ""
    return text + "."
