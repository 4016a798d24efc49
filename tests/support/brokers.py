"""Which Kafka broker the tests run on: decided here, once for a test session, and said in pytest's header.

``GPUFLEET_TEST_BROKER`` is ``embedded`` (the default), ``apache`` (the default of ``make e2e``), ``docker`` or the
``host:port`` of a running broker.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gpufleet.embedded.broker import EmbeddedBroker, answers
from tests.support.kafka import ApacheKafka

CONTAINER_IMAGE = "confluentinc/cp-kafka:7.9.5"
_NAMED = ("embedded", "apache", "docker")


class BrokerUnavailable(RuntimeError):
    """The broker that was asked for cannot be had here. A failure: whoever names a backend means it."""


@dataclass(frozen=True)
class Broker:
    """The broker of this session, and what it can do.

    ``idempotence``: idempotent and transactional producers work. ``compacts``: compaction and retention run.
    ``fetch_wait_ms``: a good ``fetch_max_wait_ms`` (the embedded broker does not wake a waiting fetch).
    ``process``: for tests that stop, kill and start it; None where it is not ours.
    """

    kind: str
    bootstrap: str
    description: str
    idempotence: bool = True
    compacts: bool = True
    fetch_wait_ms: int = 500
    process: EmbeddedBroker | ApacheKafka | None = None


def chosen() -> str:
    """The kind of broker that this session uses; raises BrokerUnavailable for a word that is none."""
    default = "apache" if os.environ.get("GPUFLEET_E2E") else "embedded"
    kind = os.environ.get("GPUFLEET_TEST_BROKER") or default
    if kind not in _NAMED and not _is_address(kind):
        raise BrokerUnavailable(f"GPUFLEET_TEST_BROKER={kind!r}: give {', '.join(_NAMED)} or host:port")
    return kind


@contextmanager
def open_broker(kind: str) -> Iterator[Broker]:
    """Start (or reach) a broker of this kind and stop it at the end."""
    if kind == "embedded":
        with EmbeddedBroker() as embedded:
            yield Broker(
                kind,
                embedded.bootstrap,
                "embedded (Tansu, in memory)",
                idempotence=False,
                compacts=False,
                fetch_wait_ms=20,
                process=embedded,
            )
    elif kind == "apache":
        with ApacheKafka() as kafka:
            yield Broker(kind, kafka.bootstrap, "Apache Kafka, one node", process=kafka)
    elif kind == "docker":
        with _container() as bootstrap:
            yield Broker(kind, bootstrap, f"container {CONTAINER_IMAGE}")
    else:
        host, _, port = kind.rpartition(":")
        if not answers(host, int(port)):
            raise BrokerUnavailable(f"no Kafka broker answers on {kind}")
        yield Broker("external", kind, f"running broker {kind}")


def docker_problem() -> str:
    """Why no container can be started here; empty if one can."""
    try:
        docker = importlib.import_module("docker")
    except ImportError as error:
        return f"no Docker client library: {error}"
    try:
        docker.from_env(timeout=2).ping()
    except (docker.errors.DockerException, OSError) as error:
        return f"no container engine answers: {str(error).splitlines()[0][:120]}"
    return ""


@contextmanager
def _container() -> Iterator[str]:
    problem = docker_problem()
    if problem:
        raise BrokerUnavailable(problem)
    from testcontainers.community.kafka import KafkaContainer

    with KafkaContainer(CONTAINER_IMAGE).with_kraft() as container:
        yield str(container.get_bootstrap_server())


def _is_address(text: str) -> bool:
    host, separator, port = text.rpartition(":")
    return bool(host and separator and port.isdigit())
