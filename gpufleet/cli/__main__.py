"""`python -m gpufleet.cli`: the console script."""

from __future__ import annotations

from gpufleet.cli.main import run

if __name__ == "__main__":
    run()
