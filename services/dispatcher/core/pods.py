"""What the pods of a workload say where its object does not say enough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gpufleet.model.kinds import conditions
from gpufleet.model.kinds.failures import TAKEN_AWAY
from gpufleet.model.placement import FailureClass

Json = Mapping[str, Any]


def live(pods: Iterable[Json]) -> int:
    """Returns how many pods have not ended; one that is being deleted still runs."""
    return sum(1 for pod in pods if conditions.sub(pod, "status").get("phase") not in ("Succeeded", "Failed"))


def blame(pods: Iterable[Json], otherwise: FailureClass) -> FailureClass:
    """Returns who is to blame for a failed job: infrastructure if any pod was taken away, else a failed container.

    One lost pod makes the others of a training job fail, so their exit codes count only where none was lost.
    ``otherwise`` is what the object's own status says; it stands where the pods are gone or say nothing.
    """
    failed = False
    for pod in pods:
        status = conditions.sub(pod, "status")
        taken = conditions.text(status, "reason") in TAKEN_AWAY
        if taken or conditions.find(status, "DisruptionTarget") is not None:
            return FailureClass.INFRASTRUCTURE
        failed = failed or any(conditions.count(ended, "exitCode") for ended in _terminated(status))
    return FailureClass.USER if failed else otherwise


def _terminated(status: Json) -> Iterable[Json]:
    for field in ("initContainerStatuses", "containerStatuses"):
        for container in conditions.items(status, field):
            yield conditions.sub(conditions.sub(container, "state"), "terminated")
