"""Taking one workload to where its assignment wants it: look, ask the core for the next step, perform, look again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gpufleet.kube.client import KubeClient
from gpufleet.kube.errors import ApiStatusError, KubeError, NotServed
from gpufleet.kube.fencing import stamp_of
from gpufleet.kube.resources import CONFIG_MAPS
from gpufleet.kube.writes import Outcome
from gpufleet.model import kinds
from gpufleet.model.placement import Assignment, AssignmentState, ObservedPhase
from services.dispatcher.core import answers, render
from services.dispatcher.core import pods as pods_of
from services.dispatcher.core.cache import Place
from services.dispatcher.core.parts import Part, parts, together
from services.dispatcher.core.steps import (
    Baseline,
    Create,
    CreateNamespace,
    Delete,
    Done,
    Facts,
    Live,
    Release,
    Superseded,
    Update,
    Write,
    next_step,
)
from services.dispatcher.core.table import ClusterTable
from services.dispatcher.hub import Hub, Meters
from services.dispatcher.perform import perform
from services.dispatcher.views import Views

FENCE = (CONFIG_MAPS.api_version, CONFIG_MAPS.kind)
Json = dict[str, Any]
Type = tuple[str, str]
# Far more than a job from nothing to running takes; only others who write all the time can use them up.
_MOST_STEPS = 20


class Contended(KubeError):
    """Others keep changing the object, or may own the cluster by now; it is tried again later."""


@dataclass(slots=True)
class Bench:
    """What the work at one cluster needs while one connection lasts.

    ``baselines`` are the answers to our last writes, by workload and name of the object.
    """

    cluster: str
    client: KubeClient
    views: Views
    table: ClusterTable
    hub: Hub
    meters: Meters
    patience: float  # seconds to wait for a kind to be listed
    incarnation: str = ""
    baselines: dict[str, dict[str, Baseline]] = field(default_factory=dict)
    rendered: render.Renderings = field(default_factory=render.Renderings)
    _parts: dict[str, tuple[Assignment, tuple[Part, ...]]] = field(default_factory=dict)

    def forget(self, workload: str) -> None:
        """Drops what is known of a workload that is not assigned any more."""
        self.baselines.pop(workload, None)
        self.rendered.forget(workload)
        self._parts.pop(workload, None)

    def parts(self, assignment: Assignment) -> tuple[Part, ...]:
        """Returns the objects of an assignment, the same ones each time."""
        known = self._parts.get(assignment.workload)
        if known is None or known[0] is not assignment:
            known = self._parts[assignment.workload] = (assignment, parts(assignment))
        return known[1]

    def facts(self, workload: str) -> Facts:
        """What the core is told besides the objects."""
        return Facts(self.hub.log_id, self.incarnation, self.hub.frozen, last=self.table.last(workload))


@dataclass(slots=True)
class _Look:
    """What is to be read anew, and what the last writes have taught."""

    fresh: bool = False
    fresh_fence: bool = False
    namespace: bool = True


async def attend(bench: Bench, workload: str) -> tuple[Assignment, Done] | None:
    """Works on a workload until nothing is left to do now; returns its newest assignment and what became of it.

    None: there is no assignment any more, or a later decision is at the cluster; nothing is to be said.
    Raises KubeError; Contended where it is to be tried again.
    """
    looks: dict[str, _Look] = {}
    for _ in range(_MOST_STEPS):
        assignment = bench.table.lookup(workload)
        if assignment is None:
            return None
        found: list[tuple[Part, Done]] = []
        for part in bench.parts(assignment):
            step = await _advance(bench, assignment, part, looks)
            if isinstance(step, Superseded):
                return None
            if step is None:
                break
            found.append((part, step))
        else:
            return assignment, together(found)
    raise Contended(f"{workload} in {bench.cluster} keeps being changed by others")


async def _advance(
    bench: Bench, assignment: Assignment, part: Part, looks: dict[str, _Look]
) -> Done | Superseded | None:
    """Makes the next step for one object; None where it is to be looked at again."""
    if not bench.hub.may_write(bench.cluster):
        raise Contended(f"{bench.cluster} may be another instance's by now")
    look = looks.setdefault(part.name, _Look())
    try:
        live = await _live(bench, part, look)
    except NotServed as error:
        return answers.not_served(error)
    if bench.table.lookup(assignment.workload) is not assignment:
        looks.clear()
        looks.update({p.name: _Look(fresh=True) for p in bench.parts(assignment)})
        return None
    step = next_step(part.order, bench.facts(assignment.workload), live, bench.rendered)
    if isinstance(step, Done | Superseded):
        return step
    if isinstance(step, Update) and assignment.job and not look.fresh_fence:
        look.fresh_fence = True  # rule 8: another look at the fence before a job starts or changes
        return None
    await _write(bench, part, step, look)
    return None


async def _write(bench: Bench, part: Part, step: Write, look: _Look) -> None:
    # A look may have taken long: the last question before every write is whether it is still ours to make.
    if not bench.hub.may_write(bench.cluster):
        return
    look.fresh_fence = False
    try:
        written = await perform(bench.client, step)
    except ApiStatusError as error:
        if error.namespace_missing and isinstance(step, Create | Update):
            look.namespace = False
            return
        raise
    if written.outcome is not Outcome.DONE:
        bench.meters.conflicts.labels(bench.cluster).inc()
        look.fresh = True
        if isinstance(step, CreateNamespace):
            look.namespace = True
        return
    look.fresh = isinstance(step, Delete | Release)
    match step:
        case CreateNamespace():
            look.namespace = True
        case Delete() | Release():
            bench.meters.deletes.labels(bench.cluster).inc()
            bench.baselines.get(part.order.workload, {}).pop(part.name, None)
        case Create() | Update():
            assert written.obj is not None
            bench.meters.applies.labels(bench.cluster).inc()
            bench.views.keep(written.obj)
            if (written.obj.get("apiVersion"), written.obj.get("kind")) != FENCE:
                bench.baselines.setdefault(part.order.workload, {})[part.name] = Baseline(step.obj, written.obj)
                if isinstance(step, Update) and stamp_of(step.live) == stamp_of(step.obj) and not part.order.job:
                    bench.meters.drift.labels(bench.cluster).inc()


async def _live(bench: Bench, part: Part, look: _Look) -> Live:
    """Reads what the next step depends on: from the watched views, but anew where a mistake could not be mended."""
    assignment = part.order
    workload = assignment.workload
    removing = assignment.state is AssignmentState.REMOVING
    if assignment.state is AssignmentState.WAITING:
        return Live()
    fresh = look.fresh or removing
    obj = await _object(bench, part, fresh)
    fence = None
    if assignment.job:
        place = (render.namespace_of(workload), render.fence_name(workload))
        fence = await _get(bench, FENCE, place, fresh or look.fresh_fence, _known(bench, assignment))
    count = 0
    if answers.counts_pods(assignment, obj, fence):
        count = pods_of.live(await bench.views.pods(workload))
    return Live(obj, fence, look.namespace, count, bench.baselines.get(workload, {}).get(part.name))


async def _object(bench: Bench, part: Part, fresh: bool) -> Json | None:
    assignment = part.order
    namespace, name = render.namespace_of(assignment.workload), part.name
    served = 0
    missing: NotServed | None = None
    for type_ in types_of(assignment):
        try:
            obj = await _get(bench, type_, (namespace, name), fresh, _known(bench, assignment))
        except NotServed as error:
            missing = error
            continue
        served += 1
        if obj is not None:
            return obj
    if missing is not None and not served and assignment.state is not AssignmentState.REMOVING:
        raise missing
    return None  # what is not served is not there either


async def _get(bench: Bench, type_: Type, place: Place, fresh: bool, known: bool) -> Json | None:
    if fresh:
        return await bench.views.read(*type_, place)
    await bench.client.resource_for(*type_)  # raises NotServed; cached
    view = bench.views.of(*type_)
    obj = view.cache.get(place)
    if obj is None and known and not view.synced:
        if not await bench.views.synced(*type_, timeout=bench.patience):
            return await bench.views.read(*type_, place)
        obj = view.cache.get(place)
    return obj


def _known(bench: Bench, assignment: Assignment) -> bool:
    """Whether the object was there before, so that looking for it is better than trying to create it."""
    last = bench.table.last(assignment.workload)
    return last is not None and last.phase is ObservedPhase.APPLIED


def types_of(assignment: Assignment) -> Sequence[Type]:
    """Returns as what an assignment's object may exist: its manifest's type, or every one that the key's kind has."""
    manifest = assignment.manifest
    api_version, kind = manifest.get("apiVersion"), manifest.get("kind")
    if isinstance(api_version, str) and isinstance(kind, str):
        return ((api_version, kind),)
    wanted = assignment.workload.split("/")[1]
    return tuple((version, spec.kind) for spec in kinds.known() if spec.key == wanted for version in spec.api_versions)
