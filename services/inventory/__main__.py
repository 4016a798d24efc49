"""`python -m services.inventory`"""

from __future__ import annotations

from gpufleet.bus.process import main as run
from services.inventory.bootstrap import build
from services.inventory.settings import InventorySettings


def main() -> None:
    """Runs inventory until it is told to stop."""
    run("inventory", InventorySettings, build)


if __name__ == "__main__":
    main()
