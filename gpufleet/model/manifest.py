"""Manifests of workloads that are kept by the hundred thousand: as JSON, decoded where somebody looks inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

import msgspec

from gpufleet.model.workload import Workload

_ENCODER = msgspec.json.Encoder(order="sorted")


class PackedManifest(Mapping[str, Any]):
    """A manifest as compact JSON with sorted keys: a fifth of the memory of dicts, and nothing to encode again.

    What it gives out is shared, so it is not to be changed.
    """

    __slots__ = ("json",)

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        self.json: bytes = _ENCODER.encode(manifest)

    @classmethod
    def of_json(cls, json: bytes) -> PackedManifest:
        """Returns what is JSON already; its keys need not be sorted then."""
        made = cls.__new__(cls)
        made.json = json
        return made

    def __getitem__(self, key: str) -> Any:
        return _decoded(self.json)[key]

    def __iter__(self) -> Iterator[str]:
        return iter(_decoded(self.json))

    def __len__(self) -> int:
        return len(_decoded(self.json))

    def __bool__(self) -> bool:
        return self.json != b"{}"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PackedManifest):
            return self.json == other.json
        return _decoded(self.json) == other

    __hash__ = None  # type: ignore[assignment]  # as a dict has none

    def __repr__(self) -> str:
        return f"PackedManifest({_decoded(self.json)!r})"


@lru_cache(maxsize=256)
def _decoded(json: bytes) -> dict[str, Any]:
    return cast("dict[str, Any]", msgspec.json.decode(json))


def pack(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the manifest packed; as it is where JSON cannot say it."""
    if isinstance(manifest, PackedManifest):
        return manifest
    try:
        return PackedManifest(manifest)
    except (TypeError, ValueError, RecursionError):
        return manifest


def packed(workload: Workload) -> Workload:
    """Returns the workload with its manifest packed."""
    return replace(workload, manifest=pack(workload.manifest))
