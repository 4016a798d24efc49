"""What a workload that waits asks for: its pods' selectors and tolerations, and the units that they may land in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from gpufleet.model.policy import ResourcePolicy, ResourceUnit
from gpufleet.model.reasons import Code
from gpufleet.model.selectors import Toleration, untolerated
from gpufleet.model.workload import PodShape
from gpufleet.wire.documents import Parsed
from services.scheduler.core.units import applying, rejected
from sim.remedy_case import Case, Remedy, Sized


def changes(case: Case) -> Iterator[Remedy]:
    """Yields changes of what keeps the pods from nodes, and of rules of a ResourcePolicy that keep them waiting."""
    workload = case.alone.workloads[case.workload]
    shapes = [component.shape for component in workload.components]
    if case.has(Code.NO_MATCHING_NODES):
        for key, value in sorted({pair for shape in shapes for pair in shape.node_selector}):
            change = partial(_without_label, pair=(key, value))
            yield Remedy(f"without the nodeSelector {key}={value} of its pods", _of_shapes(case, change))
        if any(shape.affinity for shape in shapes):
            yield Remedy("without the required node affinity of its pods", _of_shapes(case, _without_affinity))
        yield from _of_taints(case, shapes)
    policy = _governing(case)
    if policy is None:
        return
    where = f"ResourcePolicy {policy.namespace}/{policy.name}"
    if case.has(Code.WAITING_IN_UNIT):
        easy = replace(policy, when_try_next="LackResourceOrExceedMax", timeout=None)
        text = f"whenTryNextUnits.policy: LackResourceOrExceedMax in {where}"
        yield Remedy(text, partial(_with_units, policy=easy))
    missing = rejected(workload, policy)
    if missing:
        fewer = replace(policy, match_label_keys=tuple(key for key in policy.match_label_keys if key != missing))
        yield Remedy(f"without {missing} in matchLabelKeys of {where}", partial(_with_units, policy=fewer))


def _of_taints(case: Case, shapes: list[PodShape]) -> Iterator[Remedy]:
    told: set[str] = set()
    for cluster in case.named({Code.NO_MATCHING_NODES}):
        inventory = case.alone.inventories.get(cluster)
        for node_class in inventory.node_classes if inventory is not None else ():
            for shape in shapes:
                taint = untolerated(node_class.taints, shape.tolerations)
                if taint is not None and taint.text not in told:
                    told.add(taint.text)
                    change = partial(_tolerating, toleration=Toleration(taint.key, "Equal", taint.value, taint.effect))
                    yield Remedy(f"a toleration of {taint.text} in its pods", _of_shapes(case, change))


def _without_label(shape: PodShape, pair: tuple[str, str]) -> PodShape:
    return replace(shape, node_selector=tuple(found for found in shape.node_selector if found != pair))


def _without_affinity(shape: PodShape) -> PodShape:
    return replace(shape, affinity=())


def _tolerating(shape: PodShape, toleration: Toleration) -> PodShape:
    return replace(shape, tolerations=(*shape.tolerations, toleration))


def _of_shapes(case: Case, change: Callable[[PodShape], PodShape]) -> Callable[[Parsed], Parsed]:
    def changed(parsed: Parsed) -> Parsed:
        workload = parsed.workloads[case.workload]
        components = tuple(replace(c, shape=change(c.shape)) for c in workload.components)
        other = replace(workload, components=components, digest=f"{workload.digest}+")
        return replace(parsed, workloads={**parsed.workloads, case.workload: other})

    return changed


def units(case: Case) -> Iterator[Sized]:
    """Yields bounds of the units of its ResourcePolicy, by pods of it."""
    policy = _governing(case)
    if policy is None or not case.has(Code.UNIT_AT_MAX, Code.NO_UNIT_HAS_ROOM, Code.WAITING_IN_UNIT):
        return
    requests = dict(case.alone.workloads[case.workload].components[0].shape.requests)
    for index, unit in enumerate(policy.units):
        if unit.max is not None or unit.max_resources:
            yield Sized(
                partial(_unit_text, policy=policy, index=index),
                partial(_with_unit, policy=policy, index=index, requests=requests),
                case.now.unplaced,
            )


def _governing(case: Case) -> ResourcePolicy | None:
    workload = case.alone.workloads[case.workload]
    policies = case.alone.resource_policies.values()
    return applying(workload, [policy for policy in policies if policy.namespace == workload.namespace])


def _raised(unit: ResourceUnit, count: int, requests: dict[str, int]) -> ResourceUnit:
    most = None if unit.max is None else unit.max + count
    amounts = tuple((name, amount + count * requests.get(name, 0)) for name, amount in unit.max_resources)
    return replace(unit, max=most, max_resources=amounts)


def _unit_text(count: int, policy: ResourcePolicy, index: int) -> str:
    unit = policy.units[index]
    fields = ["max"] * (unit.max is not None) + ["maxResources"] * bool(unit.max_resources)
    pods = f"{count} more pod{'s' if count > 1 else ''}"
    return f"{pods} in {' and '.join(fields)} of units[{index}] of ResourcePolicy {policy.namespace}/{policy.name}"


def _with_unit(parsed: Parsed, count: int, policy: ResourcePolicy, index: int, requests: dict[str, int]) -> Parsed:
    changed = [_raised(unit, count, requests) if i == index else unit for i, unit in enumerate(policy.units)]
    return _with_units(parsed, replace(policy, units=tuple(changed)))


def _with_units(parsed: Parsed, policy: ResourcePolicy) -> Parsed:
    changed = replace(policy, digest=f"{policy.digest}+")
    keys = [k for k, p in parsed.resource_policies.items() if (p.namespace, p.name) == (policy.namespace, policy.name)]
    return replace(parsed, resource_policies={**parsed.resource_policies, **dict.fromkeys(keys, changed)})
