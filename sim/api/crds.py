"""The CustomResourceDefinitions that travel with the simulation (`sim/crds/*.yaml`)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from gpufleet.wire.yaml import plain
from sim.api.resources import CUSTOM_RESOURCE_DEFINITIONS
from sim.api.store import Store

Json = dict[str, Any]

CRD_FOLDER = Path(__file__).resolve().parent.parent / "crds"


@cache
def crd_documents() -> tuple[Json, ...]:
    """All definitions, ordered by file name. Do not change them."""
    return tuple(plain(path.read_text(encoding="utf-8")) for path in sorted(CRD_FOLDER.glob("*.yaml")))


def install_crds(store: Store, *, now: float) -> None:
    """Create the definitions that a store lacks."""
    for document in crd_documents():
        if store.find(CUSTOM_RESOURCE_DEFINITIONS, "", document["metadata"]["name"]) is None:
            store.create(CUSTOM_RESOURCE_DEFINITIONS, document, now=now)
