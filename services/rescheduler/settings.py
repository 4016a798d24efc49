"""Settings of the rescheduler, from environment variables `GPUFLEET_RESCHEDULER_…`. Times in seconds."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from gpufleet.telemetry.settings import FleetSettings
from services.rescheduler.core import Limits


class ReschedulerSettings(FleetSettings):
    """What can be set; the first two defaults are ACK One's."""

    section: ClassVar[str] = "rescheduler"
    model_config = SettingsConfigDict(env_prefix="GPUFLEET_RESCHEDULER_", extra="ignore")

    check_every: float = Field(120.0, gt=0, description="how often pending pods are looked at")
    pending_after: float = Field(30.0, ge=0, description="how long a pod may be unschedulable before it moves")
    cool_down: float = Field(300.0, ge=0, description="how long a cluster that lost replicas may not have them back")
    max_redispatch: int = Field(3, ge=0, description="how often a job is sent elsewhere before it is given up")
    backoff_first: float = Field(10.0, ge=0, description="wait before the second move of a workload; doubles")
    backoff_most: float = Field(300.0, ge=0, description="the longest such wait")
    moves_per_minute: int = Field(120, ge=1, description="bound over the whole fleet")

    def limits(self) -> Limits:
        """What the core needs of it."""
        return Limits(
            check_every=self.check_every,
            pending_after=self.pending_after,
            cool_down=self.cool_down,
            max_redispatch=self.max_redispatch,
            backoff_first=self.backoff_first,
            backoff_most=self.backoff_most,
            moves_per_minute=self.moves_per_minute,
        )
