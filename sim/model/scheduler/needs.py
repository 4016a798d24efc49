"""What a pod asks of a node, in a form that equal pods share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from json import dumps, loads
from typing import Any

from gpufleet.model import names
from gpufleet.model.kinds.pods import component
from gpufleet.model.kinds.reading import View as Reading
from gpufleet.model.selectors import NodeSelectorTerm, Requirement
from gpufleet.model.workload import PodShape
from sim.model.api import Json
from sim.model.objects import integer, labels_of

_SPEC_FIELDS = ("nodeSelector", "affinity", "tolerations", "overhead", "resources")
_SERVERLESS_LABELS = (names.GPU_MODEL_SERIES, names.SERVERLESS_REGION)


@dataclass(frozen=True, slots=True)
class Needs:
    """A pod's shape, what it prefers, and what it asks of a serverless region.

    `gpus` counts whole devices of any vendor; `model` and `region` are empty where the pod does not say.
    """

    shape: PodShape
    preferred: tuple[tuple[int, NodeSelectorTerm], ...] = ()
    gpus: int = 0
    model: str = ""
    region: str = ""


def needs_of(pod: Mapping[str, Any]) -> Needs:
    """The needs of a pod; equal pods get the same object."""
    spec, labels = pod["spec"], labels_of(pod)
    relevant = {name: spec[name] for name in _SPEC_FIELDS if spec.get(name)}
    for name in ("containers", "initContainers"):
        if spec.get(name):
            relevant[name] = [
                {key: container[key] for key in ("resources", "restartPolicy") if container.get(key)}
                for container in spec[name]
            ]
    return _parse(dumps([relevant, [labels.get(name, "") for name in _SERVERLESS_LABELS]]))


@lru_cache(maxsize=4096)
def _parse(text: str) -> Needs:
    spec, (model, region) = loads(text)
    shape = component("", 1, Reading({"spec": spec}, "", [])).shape
    gpus = sum(amount for name, amount in shape.requests if name.endswith("/gpu"))
    return Needs(shape, _preferred(spec), gpus, model, region)


def _preferred(spec: Json) -> tuple[tuple[int, NodeSelectorTerm], ...]:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    return tuple(
        (integer(entry.get("weight"), 1), _term(entry.get("preference") or {}))
        for entry in affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    )


def _term(term: Json) -> NodeSelectorTerm:
    def requirements(field: str) -> tuple[Requirement, ...]:
        return tuple(
            Requirement(e.get("key", ""), e.get("operator", ""), tuple(e.get("values") or ()))
            for e in term.get(field) or ()
        )

    return NodeSelectorTerm(requirements("matchExpressions"), requirements("matchFields"))
