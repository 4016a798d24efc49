"""Quota trees in short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpufleet.model.quota import ElasticQuotaTree, Quota

GPU = "nvidia.com/gpu"


def quota(
    name: str,
    low: int | Mapping[str, int] | None = None,
    high: int | Mapping[str, int] | None = None,
    *namespaces: str,
    children: tuple[Quota, ...] = (),
    **rest: Any,
) -> Quota:
    """One quota; bare numbers are GPUs."""
    return Quota(name, _amounts(low), _amounts(high), namespaces, children=children, **rest)


def tree(*children: Quota, total: int | Mapping[str, int] | None = None, version: int = 0) -> ElasticQuotaTree:
    """A tree of the whole fleet."""
    return ElasticQuotaTree("eq", quota("root", total, total, children=children), version)


def _amounts(given: int | Mapping[str, int] | None) -> tuple[tuple[str, int], ...]:
    if given is None:
        return ()
    return tuple(sorted(({GPU: given} if isinstance(given, int) else given).items()))
