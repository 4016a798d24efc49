"""On which nodes the pods of one component are, and which of them go first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from gpufleet.model.cluster import NodePods
from services.inventory.core.objects import Pod

# From a node's name to its class (a virtual node's is its own name) and its number; None: it has not been seen yet.
Where = Callable[[str], tuple[str, int] | None]
# So many runs of pods on a node are told of one component; of the others only how many there are by class.
_TOLD = 256


def nodes_of(pods: Sequence[Pod], where: Where) -> tuple[NodePods, ...]:
    """Returns where bound pods are, in the order in which their controller gives them up when it needs fewer.

    A StatefulSet gives up the highest ordinals first; the others do as a ReplicaSet (kube-controller-manager's
    ActivePodsWithRanks): first what is not ready, then those of which most are on the same node, then the youngest.
    """
    here = Counter((pod.node, pod.unit) for pod in pods)

    def rank(pod: Pod) -> tuple[int, bool, int, float, str]:
        return (
            -pod.ordinal if pod.ordinal is not None else 0,
            pod.ready,
            -here[pod.node, pod.unit],
            -pod.created,
            pod.uid,
        )

    told: list[NodePods] = []
    others: Counter[tuple[str, str]] = Counter()
    for pod in sorted(pods, key=rank):
        found = where(pod.node)
        if found is None:
            continue
        node_class, number = found
        last = told[-1] if told else None
        if last is not None and (last.node_class, last.number, last.unit) == (node_class, number, pod.unit):
            told[-1] = NodePods(node_class, number, last.pods + 1, pod.unit)
        elif len(told) < _TOLD and not others:
            told.append(NodePods(node_class, number, 1, pod.unit))
        else:
            others[node_class, pod.unit] += 1
    told += [NodePods(name, 0, count, unit) for (name, unit), count in sorted(others.items())]
    return tuple(told)
