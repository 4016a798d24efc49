"""gpufleet: an event-driven scheduler that places AI workloads on many Kubernetes clusters."""

from __future__ import annotations

__version__ = "0.1.0"
