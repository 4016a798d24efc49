"""By which labels the nodes of a class can be told from those of the other classes of their cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpufleet.model.resources import Labels

# What clouds and device plugins call kinds of nodes by; other labels only where these do not tell.
_FIRST = ("node.kubernetes.io/instance-type", "nvidia.com/gpu.product")


def telling(labels: Mapping[str, str], others: Sequence[Mapping[str, str]]) -> Labels | None:
    """Returns a few of a class's labels that no other class has all of; none if no other is there to be told from.

    None if there are no such labels: some other class has all labels of this one.
    """
    ranked = sorted(labels, key=lambda key: (_FIRST.index(key) if key in _FIRST else len(_FIRST), key))
    left = list(others)
    found: list[tuple[str, str]] = []
    while left:
        alike = {key: [other for other in left if other.get(key) == labels[key]] for key in ranked}
        key = min(ranked, key=lambda key: len(alike[key]), default="")
        if not key or len(alike[key]) == len(left):
            return None
        found.append((key, labels[key]))
        left = alike[key]
    return tuple(sorted(found))
