"""A node as the scheduler keeps it: what it has, what its pods take, and whether a pod fits."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from gpufleet.model.cluster import Scoring
from gpufleet.model.quantity import QuantityError
from gpufleet.model.resources import parse_resources
from gpufleet.model.selectors import Taint, untolerated
from sim.model.names import REGION_LABEL, SERVERLESS_TOTAL, VIRTUAL_LABEL, VIRTUAL_VALUE
from sim.model.objects import annotations_of, deleting, labels_of
from sim.model.scheduler.needs import Needs

_DIGITS = re.compile(r"(\d+)")
# Other resources count for pods that ask for them.
_ALWAYS_SCORED = ("cpu", "memory")
STARTUP_TAINTS = frozenset(
    {
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/network-unavailable",
        "node.cloudprovider.kubernetes.io/uninitialized",
    }
)
# More than any score: a pod goes to a virtual node where no other takes it.
VIRTUAL_PENALTY = 10_000


def natural(name: str) -> tuple[Any, ...]:
    """A sort key by which `a-2` comes before `a-10`."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in _DIGITS.split(name))


def is_virtual(node: Mapping[str, Any]) -> bool:
    """Whether a node is a virtual kubelet."""
    return labels_of(node).get(VIRTUAL_LABEL) == VIRTUAL_VALUE


def read_stock(text: str | None) -> dict[str, int] | None:
    """Serverless GPUs by model series; None is unlimited, what cannot be read is no stock."""
    if text is None:
        return None
    try:
        return {str(entry["gpuModelSeries"]): int(entry["gpus"]) for entry in json.loads(text)}
    except (ValueError, TypeError, KeyError):
        return {}


def _amounts(quantities: Mapping[str, Any] | None) -> dict[str, int]:
    try:
        return dict(parse_resources(quantities, round_up=False))
    except QuantityError:
        return {}


class NodeState:
    """One node. `version` changes with everything that may change whether or how well a pod fits."""

    __slots__ = (
        "allocatable",
        "labels",
        "name",
        "order",
        "region",
        "static_version",
        "stock",
        "taints",
        "unschedulable",
        "used",
        "used_models",
        "version",
        "virtual",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.order = natural(name)
        self.version = 0
        self.static_version = 0
        self.labels: Mapping[str, str] = {}
        self.taints: tuple[Taint, ...] = ()
        self.unschedulable = False
        self.allocatable: dict[str, int] = {}
        self.used: dict[str, int] = {}
        self.virtual = False
        self.region = ""
        self.stock: dict[str, int] | None = None
        self.used_models: dict[str, int] = {}

    def read(self, node: Mapping[str, Any]) -> bool:
        """Takes over a Node object; whether anything that matters has changed."""
        spec, status = node.get("spec") or {}, node.get("status") or {}
        virtual = is_virtual(node)
        labels = labels_of(node)
        fresh = (
            labels,
            tuple(Taint(t.get("key", ""), t.get("effect", ""), t.get("value") or "") for t in spec.get("taints") or ()),
            bool(spec.get("unschedulable")) or deleting(node),
            _amounts(status.get("allocatable")),
            virtual,
            labels.get(REGION_LABEL, ""),
            read_stock(annotations_of(node).get(SERVERLESS_TOTAL)) if virtual else None,
        )
        known = (
            self.labels,
            self.taints,
            self.unschedulable,
            self.allocatable,
            self.virtual,
            self.region,
            self.stock,
        )
        if fresh == known:
            return False
        (self.labels, self.taints, self.unschedulable, self.allocatable, self.virtual, self.region, self.stock) = fresh
        self.version += 1
        self.static_version += 1
        return True

    def take(self, needs: Needs, sign: int = 1) -> None:
        """Books a pod, or gives back what it took (`sign` -1)."""
        for name, amount in needs.shape.requests:
            self.used[name] = self.used.get(name, 0) + sign * amount
        if needs.gpus:
            self.used_models[needs.model] = self.used_models.get(needs.model, 0) + sign * needs.gpus
        self.version += 1

    def refuses(self, needs: Needs, *, starting: bool = False) -> str:
        """Why the pod may not be here whatever room there is, in kube-scheduler's words; empty if it may.

        With `starting` the taints of a node that is not ready yet do not count.
        """
        if self.unschedulable:
            return "node(s) were unschedulable"
        shape = needs.shape
        taints = tuple(t for t in self.taints if t.key not in STARTUP_TAINTS) if starting else self.taints
        taint = untolerated(taints, shape.tolerations)
        if taint is not None:
            return f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}"
        labels = self.labels
        if any(labels.get(key) != value for key, value in shape.node_selector) or (
            shape.affinity and not any(term.matches(labels, self.name) for term in shape.affinity)
        ):
            return "node(s) didn't match Pod's node affinity/selector"
        if self.virtual and needs.region and self.region and needs.region != self.region:
            return "node(s) were in another serverless region"
        return ""

    def lacks(self, needs: Needs) -> list[str]:
        """Which resources there is not enough of, in kube-scheduler's words; empty if the pod fits."""
        used, allocatable = self.used, self.allocatable
        missing = [
            "Too many pods" if name == "pods" else f"Insufficient {name}"
            for name, amount in needs.shape.requests
            if used.get(name, 0) + amount > allocatable.get(name, 0)
        ]
        if not missing and not self._in_stock(needs):
            missing.append(f"node(s) had no serverless stock of GPU model {needs.model or '(not given)'}")
        return missing

    def fits(self, needs: Needs) -> bool:
        """Whether there is room, quicker than `lacks`."""
        used, allocatable = self.used, self.allocatable
        for name, amount in needs.shape.requests:
            if used.get(name, 0) + amount > allocatable.get(name, 0):
                return False
        return self._in_stock(needs)

    def _in_stock(self, needs: Needs) -> bool:
        if self.stock is None or not needs.gpus:
            return True
        return self.used_models.get(needs.model, 0) + needs.gpus <= self.stock.get(needs.model, 0)

    def score(self, needs: Needs, scoring: Scoring) -> int:
        """How good the node is: by what is allocated of it, 0 to 100, and whether it is to be avoided."""
        requests = dict(needs.shape.requests)
        total = weights = 0
        for name, weight in scoring.looked_at:
            allocatable = self.allocatable.get(name, 0)
            if not allocatable or (name not in _ALWAYS_SCORED and not requests.get(name)):
                continue
            taken = self.used.get(name, 0) + requests.get(name, 0)
            total += weight * ((taken if scoring.packs else allocatable - taken) * 100 // allocatable)
            weights += weight
        total //= weights or 1
        if untolerated(self.taints, needs.shape.tolerations, ("PreferNoSchedule",)) is not None:
            total -= 300
        return total - VIRTUAL_PENALTY if self.virtual else total

    def preference(self, needs: Needs) -> int:
        """The weights of the preferred terms that the node satisfies."""
        return sum(weight for weight, term in needs.preferred if term.matches(self.labels, self.name))
