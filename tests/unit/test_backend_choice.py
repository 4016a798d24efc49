"""Which broker and clusters a test session takes, and the cache that parallel sessions share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import brokers, clusters, selection
from tests.support.cache import ToolMissing, build_once, require
from tests.support.kube import gpu_node


@pytest.fixture(autouse=True)
def _no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GPUFLEET_E2E", "GPUFLEET_TEST_BROKER", "GPUFLEET_TEST_CLUSTERS"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_word_nothing_needs_to_be_installed() -> None:
    assert (brokers.chosen(), clusters.chosen()) == ("embedded", "simulated")


def test_e2e_means_the_real_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUFLEET_E2E", "1")
    assert (brokers.chosen(), clusters.chosen()) == ("apache", "real")


def test_a_named_backend_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUFLEET_E2E", "1")
    monkeypatch.setenv("GPUFLEET_TEST_BROKER", "10.0.0.7:9092")
    monkeypatch.setenv("GPUFLEET_TEST_CLUSTERS", "simulated")
    assert (brokers.chosen(), clusters.chosen()) == ("10.0.0.7:9092", "simulated")


@pytest.mark.parametrize("word", ["kafka", "host:", ":9092", "host:port"])
def test_an_unknown_broker_is_refused(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("GPUFLEET_TEST_BROKER", word)
    with pytest.raises(brokers.BrokerUnavailable, match=r"give embedded, apache, docker or host:port"):
        brokers.chosen()


def test_unknown_clusters_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUFLEET_TEST_CLUSTERS", "kind")
    with pytest.raises(ValueError, match="give simulated or real"):
        clusters.chosen()


def test_files_that_go_first_are_there() -> None:
    assert [name for name in selection.FIRST if not (selection.TESTS / name).is_file()] == []


def test_a_missing_program_is_named_with_its_purpose() -> None:
    with pytest.raises(ToolMissing, match="drawing needs `no-such-program` on the PATH"):
        require("no-such-program", "drawing")


def test_parallel_sessions_build_once(tmp_path: Path) -> None:
    built: list[Path] = []

    def build(folder: Path) -> None:
        (folder / "part").write_text("ready")
        built.append(folder)

    target = tmp_path / "cache" / "part-1"
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: build_once(target, build), range(8)))
    assert folders == {target}
    assert len(built) == 1
    assert (target / "part").read_text() == "ready"


def test_a_failed_build_leaves_nothing_and_is_tried_again(tmp_path: Path) -> None:
    target = tmp_path / "part"

    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise RuntimeError("no network")

    with pytest.raises(RuntimeError, match="no network"):
        build_once(target, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["part.lock"]
    assert build_once(target, lambda folder: None) == target


def test_a_node_keeps_what_it_can_give() -> None:
    node = gpu_node("n", gpus=4, labels={"gpu": "a100"}, taints=[{"key": "a", "effect": "NoSchedule"}])
    assert node["status"]["capacity"] == node["status"]["allocatable"]
    assert node["status"]["capacity"]["nvidia.com/gpu"] == "4"
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "n"
    assert node["spec"]["taints"] == [{"key": "a", "effect": "NoSchedule"}]
