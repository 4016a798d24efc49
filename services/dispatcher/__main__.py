"""`python -m services.dispatcher`"""

from __future__ import annotations

from gpufleet.bus.process import main as run
from services.dispatcher.bootstrap import build
from services.dispatcher.settings import DispatcherSettings


def main() -> None:
    """Runs the dispatcher until it is told to stop."""
    run("dispatcher", DispatcherSettings, build)


if __name__ == "__main__":
    main()
