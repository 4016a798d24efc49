"""Parts that run on one machine without Docker: the embedded Kafka-compatible broker and its supervision.

Nothing here imports a Kafka client; the broker is a program of its own, started as a child process.
"""

from __future__ import annotations

from gpufleet.embedded.broker import BrokerError, BrokerNotInstalled, EmbeddedBroker, PortTaken
from gpufleet.embedded.ports import free_port
from gpufleet.embedded.process import SupervisedProcess

__all__ = [
    "BrokerError",
    "BrokerNotInstalled",
    "EmbeddedBroker",
    "PortTaken",
    "SupervisedProcess",
    "free_port",
]
