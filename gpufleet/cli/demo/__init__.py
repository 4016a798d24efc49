"""`gpufleet demo`: a story with real effect, every step checked."""

from __future__ import annotations

from gpufleet.cli.demo.command import demo

__all__ = ["demo"]
