"""What a workload says that quotas go by: which quota, whether it may be preempted, and what its pods count for."""

from __future__ import annotations

from functools import lru_cache

from gpufleet.model import names
from gpufleet.model.quota import NAME_LABELS, PREEMPTIBLE_LABELS, Amounts, flavored
from gpufleet.model.resources import Labels
from gpufleet.model.workload import PodShape, Workload
from services.scheduler.core.shapes import is_gpu


def named_quota(workload: Workload) -> str:
    """Returns the quota that a workload's label names, or nothing."""
    return _label(workload.labels, NAME_LABELS) or ""


def preemptible(workload: Workload) -> bool:
    """Returns whether a workload may use more than is guaranteed, and lose it again; yes, unless its label says no."""
    return _label(workload.labels, PREEMPTIBLE_LABELS) != "false"


def _label(labels: Labels, keys: tuple[str, ...]) -> str | None:
    """Returns the value of the first of some labels that says something, or None."""
    found = [(keys.index(key), value) for key, value in labels if key in keys and value]
    return min(found)[1] if found else None


@lru_cache(maxsize=4096)
def requests(shape: PodShape, labels: Labels) -> Amounts:
    """Returns what one pod counts for: its requests, and its GPUs once more under the model that it asks for."""
    found = list(shape.requests)
    model = gpu_model(shape, labels)
    if model:
        found += [(flavored(name, model), amount) for name, amount in shape.requests if is_gpu(name)]
    return tuple(found)


def gpu_model(shape: PodShape, labels: Labels) -> str:
    """Returns the GPU model that a pod asks for by label, node selector or required affinity, or nothing."""
    asked = {**dict(labels), **dict(shape.node_selector)}
    for key in names.GPU_MODEL_LABELS:
        if asked.get(key):
            return asked[key].lower()
    found: set[str] = set()
    for term in shape.affinity:
        one = {
            r.values[0].lower()
            for r in term.expressions
            if r.key in names.GPU_MODEL_LABELS and r.operator == "In" and len(r.values) == 1
        }
        if len(one) != 1:
            return ""
        found |= one
    return found.pop() if len(found) == 1 else ""
