"""Backends of the conformance suites; what they are made of is in ``tests/support``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from gpufleet.kube.access import connect
from gpufleet.kube.client import KubeClient
from tests.support.apiserver import ApiServer, new_namespace, running_apiserver


@pytest.fixture(scope="session")
def apiserver() -> Iterator[ApiServer]:
    """The API server, one for all tests."""
    with running_apiserver() as server:
        yield server


@pytest.fixture
def namespace(apiserver: ApiServer) -> str:
    """A namespace of the test's own."""
    return new_namespace(apiserver)


@pytest.fixture
async def kube(apiserver: ApiServer) -> AsyncIterator[KubeClient]:
    """The client under test."""
    async with await connect("conformance", apiserver.access(), timeout=10) as client:
        yield client
