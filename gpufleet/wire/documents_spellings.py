"""Other ways to write a policy: the older API's names, and a field that documents in print have in the wrong place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpufleet.model.kinds.reading import Problem
from gpufleet.wire.documents_schema import Findings

RIGHT_PATH = "spec.placement.replicaScheduling"
_MISPLACED_PATH = "spec.replicaScheduling"


def normalise(manifest: Mapping[str, Any], findings: Findings) -> tuple[dict[str, Any], bool]:
    """Returns the manifest with everything in its place, and whether `replicaScheduling` was not."""
    normal = dict(manifest)
    spec = manifest.get("spec")
    if not isinstance(spec, Mapping):
        return normal, False
    spec = _rename_cluster_ids(dict(spec), "spec", findings)
    if isinstance(spec.get("prune"), bool):
        findings.warn("spec.prune", "is the old form of preserveResourcesOnDeletion, which means the opposite")
        prune = spec.pop("prune")
        spec.setdefault("preserveResourcesOnDeletion", not prune)
    resolution = spec.get("conflictResolution")
    if resolution in ("abort", "overwrite"):
        findings.warn("spec.conflictResolution", f"is written {resolution.capitalize()} today")
        spec["conflictResolution"] = resolution.capitalize()
    moved = _move_replica_scheduling(spec, findings)
    normal["spec"] = spec
    return normal, moved


def _move_replica_scheduling(spec: dict[str, Any], findings: Findings) -> bool:
    """Puts a `replicaScheduling` that is a child of `spec` where the API has it; documents in print have it there."""
    misplaced = spec.pop("replicaScheduling", None)
    if misplaced is None:
        return False
    placement = spec.get("placement")
    if placement is not None and not isinstance(placement, Mapping):
        return False
    right = (placement or {}).get("replicaScheduling")
    if right is None:
        spec["placement"] = {**(placement or {}), "replicaScheduling": misplaced}
        findings.warn(_MISPLACED_PATH, f"belongs under spec.placement; it is read as {RIGHT_PATH}")
        return True
    if right == misplaced:
        findings.warn(_MISPLACED_PATH, f"repeats {RIGHT_PATH}", "remove it")
    else:
        findings.error(_MISPLACED_PATH, f"differs from {RIGHT_PATH}", "remove it; the one under placement counts")
    return False


def _rename_cluster_ids(value: Any, path: str, findings: Findings) -> Any:
    if isinstance(value, Mapping):
        renamed = {}
        for key, item in value.items():
            here = f"{path}.{key}"
            if key == "clusterIds" and "clusterNames" not in value:
                findings.warn(here, "is the old name of clusterNames")
                key = "clusterNames"
            renamed[key] = _rename_cluster_ids(item, here, findings)
        return renamed
    if isinstance(value, list | tuple):
        return [_rename_cluster_ids(item, f"{path}[{index}]", findings) for index, item in enumerate(value)]
    return value


def original(problem: Problem, moved: bool) -> Problem:
    """Returns a problem with the path as the user wrote it."""
    if moved and problem.path.startswith(RIGHT_PATH):
        return problem._replace(path=_MISPLACED_PATH + problem.path.removeprefix(RIGHT_PATH))
    return problem
