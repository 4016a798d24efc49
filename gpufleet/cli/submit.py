"""`gpufleet apply`, `delete`, `scale`, `freeze` and `unfreeze`: what operators and producers write."""

from __future__ import annotations

import asyncio
import getpass
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from gpufleet.bus.publisher import Publisher, PublishError, RecordTooLarge
from gpufleet.bus.settings import KafkaSettings
from gpufleet.cli import files
from gpufleet.cli.errors import CliError, Exit
from gpufleet.cli.live import Tables, client, reaching_kafka, tables
from gpufleet.cli.output import interactive, note, out, progress
from gpufleet.cli.plan import where
from gpufleet.model import kinds
from gpufleet.model.log import Scale
from gpufleet.model.names import API_VERSION, FREEZE_KEY
from gpufleet.model.placement import ObservedPhase, Placement, WorkloadHealth
from gpufleet.model.reasons import Verdict
from gpufleet.model.workload import Workload
from gpufleet.wire.documents import Ignored, Object, Parsed, dump_freeze, lint_clusters, lint_policies
from gpufleet.wire.errors import RecordError
from gpufleet.wire.records import dump_cluster, dump_manifest, dump_policy, dump_scale

_CONFIRM_TIMEOUT = 30.0
_ORDER = ("clusters", "policies", "workloads")
# Ends of a wait: nothing more will happen by itself.
_SETTLED = frozenset({Verdict.FINISHED, Verdict.FAILED, Verdict.GIVEN_UP, Verdict.SUSPENDED})


async def apply(
    kafka: KafkaSettings, paths: Sequence[str], namespace: str, *, wait: bool, timeout: float, decide: bool = True
) -> None:
    """Submits documents and waits for the decision about each workload; with ``wait`` until its pods are ready."""
    parsed = await _read(kafka, paths, namespace)
    _refuse_others(parsed)
    # Clusters and policies first, so that no workload is decided without them.
    records = sorted(
        (record_of(item) for item in parsed.objects if not isinstance(item.value, Ignored)),
        key=lambda record: _ORDER.index(record[0]),
    )
    workloads = list(parsed.workloads)
    if not records:
        raise CliError("nothing to apply: the documents are of kinds that are not supported yet")
    topics = ("placements", "observations", "policies", "clusters")
    async with tables(kafka, topics) as view:
        _lint(view, parsed)
        offsets: dict[str, int] = {}
        async with publisher_for(kafka) as publisher:
            for topic, key, value in records:
                offsets[key] = (await confirm(publisher, topic, key, value)).offset
                note(f"{_noun(topic)} {key} submitted")
        if workloads and decide:
            await _follow(view, _submissions(parsed, offsets), wait=wait, timeout=timeout)


def _refuse_others(parsed: Parsed) -> None:
    """Raises CliError where a document would be left behind that its author wants in the clusters."""
    for item in parsed.objects:
        if isinstance(item.value, Ignored) and item.value.outside:
            what = f"{item.value.kind} {item.value.name} is neither placed nor read by gpufleet"
            raise CliError(
                f"{item.document.source}, document {item.document.index}: {what}; "
                "take it out of what is applied here, and apply it to the clusters by other means"
            )


async def _read(kafka: KafkaSettings, paths: Sequence[str], namespace: str) -> Parsed:
    """Returns what the documents say; kinds that they do not know may be declared on the fleet."""
    documents = files.load(paths)
    try:
        return files.parse(documents, namespace=namespace)
    except files.UnknownKinds as error:
        unknown = error
    try:
        async with tables(kafka, ("policies",)):
            return files.parse(documents, namespace=namespace)
    except CliError as error:
        if error.code is not Exit.UNREACHABLE:
            raise
        note(f"warning: kinds that are declared on the fleet are not known here: {error}")
        raise unknown from error


def _lint(view: Tables, parsed: Parsed) -> None:
    """Warns of what the policies of the fleet, and of the documents in their place, make of workloads and clusters."""
    from services.scheduler.core.select import select

    policies = view.propagation_policies() | parsed.policies
    odd = lint_policies(parsed, lambda workload: select(policies.values(), workload), view.priority_classes())
    for warning in [*odd, *lint_clusters(parsed, view.clusters() | set(parsed.clusters))]:
        note(f"warning: {warning}")


def record_of(item: Object) -> tuple[str, str, bytes]:
    """Returns topic, key and value of a document. Raises CliError where there is no topic for it."""
    manifest = item.document.manifest
    kind = manifest.get("kind")
    try:
        if kind == "Cluster":
            from gpufleet.wire.documents import ClusterDocument

            assert isinstance(item.value, ClusterDocument)
            if manifest.get("apiVersion") != API_VERSION:
                place = f"{item.document.source}, document {item.document.index}"
                raise CliError(
                    f"{place}: this Cluster is input for plan and simulate; "
                    f"register it as a Cluster of {API_VERSION} with its spec.access"
                )
            return "clusters", item.key, dump_cluster(item.value.registration)
        if kind in ("Placement", "Scenario"):
            raise CliError(f"{item.document.source}: a {kind} is input for plan and simulate, it cannot be applied")
        if item.value.__class__.__name__ == "Workload":
            return "workloads", item.key, dump_manifest(manifest, submitted_at=time.time(), submitted_by=_user())
        return "policies", item.key, dump_policy(manifest)
    except RecordError as error:
        raise CliError(f"{item.document.source}, document {item.document.index}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Submission:
    """The offset of a workload's record, and the digest that tells submissions apart."""

    offset: int
    digest: str

    def decided(self, placement: Placement) -> bool:
        """Whether a decision is about this. A submission that says the same again is not decided on anew."""
        if placement.workload_version >= self.offset:
            return True
        same = bool(self.digest) and dict(placement.inputs).get("workload") == self.digest
        return same and placement.verdict is not Verdict.DELETING


def _submissions(parsed: Parsed, offsets: Mapping[str, int]) -> dict[str, _Submission]:
    """By workload. The digest is that of what was sent: a uid in the metadata is not the envelope's."""
    found = (item.document.manifest for item in parsed.objects if isinstance(item.value, Workload))
    with kinds.declaring(parsed.kinds.values()):
        workloads = [kinds.interpret(manifest, uid="", version=0, arrival=0) for manifest in found]
    return {workload.key: _Submission(offsets[workload.key], workload.digest) for workload in workloads}


async def _follow(view: Tables, submitted: Mapping[str, _Submission], *, wait: bool, timeout: float) -> None:
    """Shows each workload's decision when it is there; raises CliError when the time is over."""
    shown: dict[str, str] = {}
    with progress("waiting for the scheduler's decision") as say:

        def look() -> bool:
            return _look(view, submitted, shown, say, wait=wait)

        in_time = await view.until(look, timeout)
    if in_time:
        _explain_unplaced(view, submitted)
        return
    missing = [key for key in submitted if key not in shown]
    if missing:
        raise CliError(
            f"no decision about {', '.join(missing)} within {timeout:g} s: is the scheduler running? "
            "(`gpufleet doctor`; a record that cannot be read is in `gpufleet dlq list`)",
            Exit.FAILED,
        )
    raise CliError(f"not ready within {timeout:g} s; `gpufleet explain {next(iter(submitted))}` says why", Exit.FAILED)


def _look(
    view: Tables, submitted: Mapping[str, _Submission], shown: dict[str, str], say: Callable[[str], None], *, wait: bool
) -> bool:
    """Prints what is new; returns whether everything that is waited for is there."""
    done, ready_pods, wanted_pods = True, 0, 0
    for key, submission in submitted.items():
        placement = view.placement(key)
        if placement is None or not submission.decided(placement):
            done = False
            continue
        ready = _ready(view, placement)
        ready_pods, wanted_pods = ready_pods + ready, wanted_pods + placement.replicas
        waiting = wait and ready < placement.replicas and placement.verdict not in _SETTLED
        text = _line(placement, ready if wait else None)
        # A person sees the count move in the progress line, so only what is settled gets a line of its own.
        if shown.get(key) != text and not (waiting and interactive()):
            out(text)
        shown[key] = text
        done = done and not waiting
    say(f"{len(shown)} of {len(submitted)} decided" + (f", {ready_pods} of {wanted_pods} pods ready" if wait else ""))
    return done


def _explain_unplaced(view: Tables, keys: Iterable[str]) -> None:
    for key in keys:
        placement = view.placement(key)
        if placement is None or not placement.unplaced:
            continue
        for reason in placement.reasons[:5]:
            note(f"  {reason.cluster or key}: {reason.code.value}: {reason.message}")


def _ready(view: Tables, placement: Placement) -> int:
    """Returns the pods that are ready, or have finished their work."""
    total = 0
    for seen in view.observed(placement.workload):
        share = placement.share(seen.cluster)
        if share is None or seen.phase is not ObservedPhase.APPLIED:
            continue
        total += share.replicas if seen.health is WorkloadHealth.SUCCEEDED else min(seen.ready, share.replicas)
    return total


def _line(placement: Placement, ready: int | None) -> str:
    text = f"{placement.workload}: {placement.verdict.value}, {placement.placed} of {placement.replicas} placed"
    places = where(placement)
    if places:
        text += f": {places}"
    return text if ready is None else f"{text}; {ready} ready"


async def delete(
    kafka: KafkaSettings, keys: Sequence[str], paths: Sequence[str], namespace: str, timeout: float
) -> None:
    """Deletes workloads, policies and registrations; waits until the copies of workloads are gone."""
    targets: list[tuple[str, str]] = [("workloads", _workload_key(key)) for key in keys]
    if paths:
        parsed = files.read(paths, namespace=namespace)
        targets += [record_of(item)[:2] for item in parsed.objects if not isinstance(item.value, Ignored)]
    async with tables(kafka, ("workloads", "policies", "clusters", "placements")) as view:
        unknown = [
            f"{_noun(topic)} {key}"
            for topic, key in targets
            if key not in view.records.get(topic, {}) and key not in view.records.get("placements", {})
        ]
        if unknown:
            raise CliError(f"not found: {', '.join(unknown)}; `gpufleet get workloads -o name` lists what is there")
        async with publisher_for(kafka) as publisher:
            for topic, key in targets:
                await confirm(publisher, topic, key, None)
                note(f"{_noun(topic)} {key} deleted")
        gone = [key for topic, key in targets if topic == "workloads"]
        if not await view.until(lambda: not any(key in view.records.get("placements", {}) for key in gone), timeout):
            left = [key for key in gone if key in view.records.get("placements", {})]
            raise CliError(f"not gone from every cluster within {timeout:g} s: {', '.join(left)}", Exit.FAILED)


async def scale(kafka: KafkaSettings, key: str, replicas: int | None) -> None:
    """Overrides the total of a workload; None gives the manifest its say again. Raises CliError."""
    if replicas is not None and replicas > kinds.MAX_REPLICAS:
        raise CliError(f"--replicas {replicas} is more than the limit of {kinds.MAX_REPLICAS}; give fewer")
    workload = _workload_key(key)
    value = None if replicas is None else dump_scale(Scale(workload, replicas, _user(), time.time()))
    async with tables(kafka, ("workloads",)) as view:
        known = workload in view.records.get("workloads", {})
    async with publisher_for(kafka) as publisher:
        await confirm(publisher, "scales", workload, value)
    if not known:
        note(f"warning: {workload} is not submitted (yet); the scale counts when it is")
    note(f"workload {workload} {'as its manifest says' if replicas is None else f'scaled to {replicas}'}")


async def freeze(kafka: KafkaSettings, reason: str | None) -> None:
    """Freezes the fleet for a reason, or lets it go on (None)."""
    value = None if reason is None else dump_policy(dump_freeze(reason))
    async with publisher_for(kafka) as publisher:
        await confirm(publisher, "policies", FREEZE_KEY, value)


@asynccontextmanager
async def publisher_for(kafka: KafkaSettings) -> AsyncIterator[Publisher]:
    """A publisher for what operators and producers write. Raises CliError."""
    async with client(kafka, writes=("clusters", "policies", "workloads", "scales")) as opened:
        yield opened.publisher


async def confirm(publisher: Publisher, topic: str, key: str, value: bytes | None) -> Any:
    """Sends one record and returns its acknowledgement. Raises CliError."""
    try:
        async with asyncio.timeout(_CONFIRM_TIMEOUT):
            return await publisher.confirm(topic, key, value)
    except RecordTooLarge as error:
        raise CliError(str(error)) from error
    except (PublishError, TimeoutError) as error:
        raise CliError(f"{topic} {key} was not acknowledged: {error or 'time is over'}", Exit.UNREACHABLE) from error


def _workload_key(key: str) -> str:
    if key.count("/") != 2 or not all(key.split("/")):
        raise CliError(f"{key!r} is not a workload: write namespace/Kind/name, such as default/Deployment/llm")
    return key


def _noun(topic: str) -> str:
    return {"policies": "policy"}.get(topic, topic.removesuffix("s"))


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


def run(work: Callable[[], Any]) -> None:
    """Runs a coroutine function, with an unreachable broker as exit code 3."""
    with reaching_kafka():
        asyncio.run(work())
