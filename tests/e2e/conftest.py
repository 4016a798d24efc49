"""The real parts as fixtures, per module: what has been tested does not take part of the machine any more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import programme
from tests.support.clusters import Cluster, open_real
from tests.support.kafka import ApacheKafka
from tests.support.kube import gpu_node
from tests.support.kubeapi import KubeApi

CLUSTERS = ("idc", "ack-a", "ack-b")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    programme.show(report)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    programme.hand_over(item)
    yield


@pytest.fixture(scope="module")
def kafka() -> Iterator[ApacheKafka]:
    """A broker that tests may kill, provided they start it again."""
    with ApacheKafka() as broker:
        yield broker


@pytest.fixture(scope="module")
def real_clusters() -> Iterator[dict[str, Cluster]]:
    """Three real clusters, each with four nodes of eight GPUs, by name."""
    nodes = [gpu_node(f"gpu-{number}") for number in range(1, 5)]
    with open_real(CLUSTERS, nodes) as clusters:
        yield clusters


@pytest.fixture
def real_cluster(real_clusters: dict[str, Cluster]) -> Cluster:
    return real_clusters[CLUSTERS[0]]


@pytest.fixture
def api(real_cluster: Cluster) -> KubeApi:
    return real_cluster.api
