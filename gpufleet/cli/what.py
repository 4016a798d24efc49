"""What `gpufleet get` can list."""

from __future__ import annotations

from enum import StrEnum


class What(StrEnum):
    """`fleet` is everything that `gpufleet plan` needs."""

    WORKLOADS = "workloads"
    PLACEMENTS = "placements"
    CLUSTERS = "clusters"
    POLICIES = "policies"
    FLEET = "fleet"
    QUOTAS = "quotas"
