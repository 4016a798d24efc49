"""Settings of the scheduler, from environment variables `GPUFLEET_SCHEDULER_…`. Times in seconds."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from gpufleet.telemetry.settings import FleetSettings
from services.scheduler.core.settings import Settings


class SchedulerSettings(FleetSettings):
    """What can be set."""

    section: ClassVar[str] = "scheduler"
    model_config = SettingsConfigDict(env_prefix="GPUFLEET_SCHEDULER_", extra="ignore")

    coalesce: float = Field(0.002, ge=0, description="events within so long are decided on together")
    batch: int = Field(500, ge=1, description="at most so many events in one decision")
    stale_after: float = Field(30.0, gt=0, description="no new replicas on a cluster whose inventory is older")
    hold_timeout: float = Field(900.0, gt=0, description="how long room is held for pods that do not come")
    provision_retry: float = Field(
        600.0,
        ge=0,
        description="how long nodes of a class are not counted on after one did not come; 0: they always are",
    )
    retry_initial: float = Field(1.0, gt=0, description="when what waits is tried again without any event; doubles")
    retry_max: float = Field(10.0, gt=0, description="the longest such wait")
    scheduler_name: str = Field(
        "default-scheduler", min_length=1, description="policies that name another are left alone"
    )

    queue_policy: Literal["Priority", "Block"] = Field(
        "Priority",
        description="without quotas: those that fit may overtake (Priority), or wait for the first (Block)",
    )
    overtake_after: float = Field(
        300.0, gt=0, description="how long the first may be overtaken until a cluster is kept"
    )

    def core(self) -> Settings:
        """What the core needs of it."""
        return Settings(
            stale_after=self.stale_after,
            hold_timeout=self.hold_timeout,
            retry_initial=self.retry_initial,
            retry_max=self.retry_max,
            blocking=self.queue_policy == "Block",
            overtake_after=self.overtake_after,
            scheduler_name=self.scheduler_name,
            provision_retry=self.provision_retry,
        )
