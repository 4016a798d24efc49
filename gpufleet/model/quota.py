"""Elastic quotas: a tree of guarantees and ceilings that every placement of the fleet counts in (specification 13).

Amounts are kept as given, zeros too: a ``max`` of 0 forbids, a ``max`` that is not given does not bound. GPUs of one
model are a resource of their own, ``nvidia.com/gpu/A100``, beside all GPUs together, ``nvidia.com/gpu``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

# Sorted by resource; unlike `Resources` with zeros.
Amounts = tuple[tuple[str, int], ...]

MAX_JOBS = "kube-queue/max-jobs"
# Which quota a workload counts in, and whether it may be preempted, by label; the first that is there counts.
NAME_LABELS = ("quota.scheduling.alibabacloud.com/name", "quota.scheduling.koordinator.sh/name")
PREEMPTIBLE_LABELS = ("quota.scheduling.alibabacloud.com/preemptible", "quota.scheduling.koordinator.sh/preemptible")
TREE_NAMESPACE = "kube-system"
QUEUE_NAMESPACE = "kube-queue"
ROOT = "root"


@dataclass(frozen=True, slots=True)
class Quota:
    """One node of the tree. Only leaves have namespaces and take workloads.

    ``lend_limit``: at most so much of an idle ``min`` is lent to others; None lends all. ``flavors``: the GPU models
    that may be asked for, lower case; none bounds nothing. ``preempts_lower``: its non-preemptible jobs may take what
    its own jobs of lower priority hold. ``blocking``: while the first in its queue waits, nobody behind it is placed.
    """

    name: str
    min: Amounts = ()
    max: Amounts = ()
    namespaces: tuple[str, ...] = ()
    lend_limit: Amounts | None = None
    flavors: tuple[str, ...] = ()
    preempts_lower: bool = False
    blocking: bool = False
    children: tuple[Quota, ...] = ()

    def walk(self) -> Iterator[Quota]:
        """Yields this node and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class ElasticQuotaTree:
    """The one tree of a fleet. ``version`` is the offset of its record."""

    name: str
    root: Quota = field(default_factory=lambda: Quota(ROOT))
    version: int = 0
    digest: str = ""

    @property
    def key(self) -> str:
        """``kind/namespace/name``, the key on the policies topic."""
        return f"ElasticQuotaTree/{TREE_NAMESPACE}/{self.name}"

    def paths(self) -> Iterator[tuple[str, ...]]:
        """Yields the leaves as the names from the root down to them."""

        def below(quota: Quota, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
            if not quota.children:
                yield (*above, quota.name)
            for child in quota.children:
                yield from below(child, (*above, quota.name))

        return below(self.root, ())


@dataclass(frozen=True, slots=True)
class QueueRule:
    """How the queue of a quota is worked off: kube-queue's `Queue` (specification 13.4).

    ``quota`` is the quota's full path or its name; empty: the queue's own name is made of the path. ``blocking``: while
    the first in it waits, nobody behind it is placed. Of two queues the one of higher ``priority`` goes first.
    """

    name: str
    quota: str = ""
    blocking: bool = False
    priority: int = 0
    version: int = 0
    digest: str = ""

    @property
    def key(self) -> str:
        """``kind/namespace/name``, the key on the policies topic."""
        return f"Queue/{QUEUE_NAMESPACE}/{self.name}"

    def means(self, path: tuple[str, ...]) -> bool:
        """Returns whether it is the queue of a quota; ``path`` are the names from the root down to it."""
        spellings = ("/".join(path), "/".join(path[1:]), path[-1])
        if self.quota:
            return self.quota.strip("/") in spellings
        return self.name in [queue_name(spelling) for spelling in spellings]


def queue_name(path: str) -> str:
    """Returns the name that kube-queue gives the queue of a quota with a full path."""
    return path.lower().replace("/", "-").replace("_", "-")[-58:]


def flavored(resource: str, model: str) -> str:
    """Returns the name of a GPU resource of one model."""
    return f"{resource}/{model.lower()}"
