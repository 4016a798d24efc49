"""Settings of inventory, from environment variables `GPUFLEET_INVENTORY_…`. Times in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from gpufleet.telemetry.settings import FleetSettings
from services.inventory.core.snapshot import Timing


class InventorySettings(FleetSettings):
    """What can be set."""

    section: ClassVar[str] = "inventory"
    model_config = SettingsConfigDict(env_prefix="GPUFLEET_INVENTORY_", extra="ignore")

    heartbeat: float = Field(10.0, gt=0, description="a snapshot is published at least so often")
    coalesce: float = Field(0.1, ge=0, description="changes within so long go into one snapshot")
    unreachable_after: float = Field(300.0, gt=0, description="silence after which a cluster counts as unreachable")
    provision_timeout: float = Field(900.0, gt=0, description="how long a pod may wait for a node being provisioned")
    discovery_interval: float = Field(30.0, gt=0, description="how often the served kinds are asked for")
    request_timeout: float = Field(10.0, gt=0, description="for one request to a cluster")
    autoscaler: str = Field("GOATScaler", description="source component of the events that tell of provisioning")
    kubeconfig_dir: Path = Field(Path(), description="what relative kubeconfig paths of registrations start from")
    secrets_dir: Path | None = Field(None, description="where the Secrets of registrations are mounted")

    def timing(self) -> Timing:
        """What the core needs of it."""
        return Timing(self.heartbeat, self.unreachable_after, self.provision_timeout)
