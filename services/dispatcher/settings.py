"""Settings of the dispatcher, from environment variables `GPUFLEET_DISPATCHER_…`. Times in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from gpufleet.kube.retry import Backoff
from gpufleet.telemetry.settings import FleetSettings


class DispatcherSettings(FleetSettings):
    """What can be set."""

    section: ClassVar[str] = "dispatcher"
    model_config = SettingsConfigDict(env_prefix="GPUFLEET_DISPATCHER_", extra="ignore")

    concurrency: int = Field(16, ge=1, le=256, description="workloads that are worked on at once, per cluster")
    request_timeout: float = Field(10.0, gt=0, description="for one request to a cluster")
    backoff_base: float = Field(0.2, gt=0, description="first bound of the wait after a failure; doubled each time")
    backoff_cap: float = Field(30.0, gt=0, description="bound that the wait does not exceed")
    probe_interval: float = Field(10.0, gt=0, description="how often a cluster is asked whether it is still the same")
    resync: float = Field(300.0, gt=0, description="how often everything is looked at again, whatever watches tell")
    coalesce: float = Field(0.05, ge=0, description="changes of an object within so long are looked at once")
    status_interval: float = Field(0.5, ge=0, description="least time between two records of one object's counts")
    stop_grace: float = Field(5.0, ge=0, description="how long writes under way may take when the service stops")
    kubeconfig_dir: Path = Field(Path(), description="what relative kubeconfig paths of registrations start from")
    secrets_dir: Path | None = Field(None, description="where the Secrets of registrations are mounted")

    def backoff(self) -> Backoff:
        """The delays after failures."""
        return Backoff(self.backoff_base, self.backoff_cap)
