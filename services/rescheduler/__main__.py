"""`python -m services.rescheduler`"""

from __future__ import annotations

from gpufleet.bus.process import main as run
from services.rescheduler.bootstrap import build
from services.rescheduler.settings import ReschedulerSettings


def main() -> None:
    """Runs the rescheduler until it is told to stop."""
    run("rescheduler", ReschedulerSettings, build)


if __name__ == "__main__":
    main()
