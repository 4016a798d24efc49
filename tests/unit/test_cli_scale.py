"""What `gpufleet scale` refuses before it asks for a broker."""

from __future__ import annotations

import pytest

from gpufleet.bus.settings import KafkaSettings
from gpufleet.cli.errors import CliError
from gpufleet.cli.submit import scale


async def test_more_replicas_than_a_record_may_ask_for_are_refused() -> None:
    with pytest.raises(CliError, match="--replicas 100001 is more than the limit of 100000"):
        await scale(KafkaSettings(bootstrap="127.0.0.1:1"), "test/Deployment/llm", 100_001)
