"""The digest that tells whether a submission is the same as before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Written by an API server, so a manifest that was read back from a cluster is the one that was submitted.
_SERVER_SET = frozenset(
    {"creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "generation", "managedFields"}
    | {"resourceVersion", "selfLink", "uid"}
)
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def canonical(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a manifest without its status and without what an API server sets."""
    kept = {key: value for key, value in manifest.items() if key != "status"}
    metadata = manifest.get("metadata")
    if isinstance(metadata, Mapping):
        metadata = {key: value for key, value in metadata.items() if key not in _SERVER_SET}
        annotations = metadata.get("annotations")
        if isinstance(annotations, Mapping) and _LAST_APPLIED in annotations:
            metadata["annotations"] = {key: value for key, value in annotations.items() if key != _LAST_APPLIED}
            if not metadata["annotations"]:
                del metadata["annotations"]
        kept["metadata"] = metadata
    return kept


def digest(manifest: Mapping[str, Any], uid: str = "") -> str:
    """Returns 64 hexadecimal digits that do not depend on the order of keys.

    Raises ValueError where the manifest is not JSON (a NaN, a key that is no text, a circle).
    """
    text = json.dumps(
        [canonical(manifest), uid], sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()
