"""What is stopped goes gracefully: services finish, leave their groups and close every client that they opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpufleet.cli.system import SERVICES, System
from tests.support.system import SIMULATION, cluster

pytestmark = pytest.mark.timeout(120)


async def test_services_stop_gracefully_and_leave_no_client_open(tmp_path: Path) -> None:
    async with System(fleet=[cluster("alpha")], folder=tmp_path, simulation=SIMULATION):
        pass
    logs = {name: (tmp_path / "logs" / f"{name}.log").read_text(encoding="utf-8") for name in SERVICES}
    assert [name for name, text in logs.items() if "Unclosed" in text] == []
    assert [name for name, text in logs.items() if '"service.stopped"' not in text] == []
