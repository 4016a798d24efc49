"""A leader in a process of its own, which writes all the time.

`python -m tests.support.lonely_leader BOOTSTRAP PREFIX` says `active EPOCH` and `inactive REASON`.
"""

from __future__ import annotations

import asyncio
import sys

from gpufleet.bus.runner import ServiceRunner, run_until_signal
from gpufleet.bus.settings import KafkaSettings
from gpufleet.telemetry.logs import configure
from tests.support.buskit import SESSION, Leader


class Writer(Leader):
    """Writes a placement every 5 ms while it believes that it is active; whether it may is up to the publisher."""

    epoch = -1

    async def caught_up(self) -> None:
        self.bus.spawn(self._write(), "writer")

    async def _write(self) -> None:
        version = 0
        while True:
            if self.epoch >= 0:
                version += 1
                self.bus.publisher.send("placements", "a/Job/b", b"{}", epoch=self.epoch, version=version)
            await asyncio.sleep(0.005)

    def activated(self, epoch: int) -> None:
        self.epoch = epoch
        sys.stdout.write(f"active {epoch}\n")
        sys.stdout.flush()

    def deactivated(self, reason: str) -> None:
        self.epoch = -1
        sys.stdout.write(f"inactive {reason}\n")
        sys.stdout.flush()


def main() -> None:
    bootstrap, prefix = sys.argv[1:]
    configure()  # to standard error
    settings = KafkaSettings(bootstrap=bootstrap, topic_prefix=prefix, session_timeout=SESSION, fetch_wait_ms=20)
    asyncio.run(run_until_signal([ServiceRunner(Writer(), kafka=settings, instance="lonely")]))


if __name__ == "__main__":
    main()
