"""Settings of the core; the service fills them from its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in seconds.

    ``stale_after``: no new replicas on a cluster whose inventory is older (three heartbeats). ``hold_timeout``: how
    long a placement holds room for pods that do not come. ``retry_initial`` doubling to ``retry_max``: when what waits
    is tried again without any event. ``lost_when_unreachable``: an unreachable cluster's replicas are lost at once
    (`gpufleet plan`), not only when the rescheduler says so. ``reason_clusters``: how many clusters a placement
    explains one by one; the others are counted by reason code. ``blocking``: without quotas, while the first in the
    queue waits nobody behind it is placed. ``overtake_after``: else, how long the first may be overtaken until a
    cluster is kept for it. ``scheduler_name``: policies that name another scheduler are left alone.
    ``provision_retry``: how long no further nodes of a class are counted on after one did not come; 0: they always are.
    """

    stale_after: float = 30.0
    hold_timeout: float = 900.0
    retry_initial: float = 1.0
    retry_max: float = 10.0
    lost_when_unreachable: bool = False
    reason_clusters: int = 10
    blocking: bool = False
    overtake_after: float = 300.0
    scheduler_name: str = "default-scheduler"
    provision_retry: float = 600.0
