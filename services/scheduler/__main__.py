"""`python -m services.scheduler`"""

from __future__ import annotations

from gpufleet.bus.process import main as run
from services.scheduler.bootstrap import build
from services.scheduler.settings import SchedulerSettings


def main() -> None:
    """Runs the scheduler until it is told to stop."""
    run("scheduler", SchedulerSettings, build)


if __name__ == "__main__":
    main()
