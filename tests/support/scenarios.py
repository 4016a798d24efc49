"""Scenarios in short: documents and steps, and a world that they happen in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpufleet.model.names import WORKLOAD_ANNOTATION
from gpufleet.model.placement import Placement
from gpufleet.wire.documents import parse_documents
from gpufleet.wire.yaml import Document, dump, load
from sim.model.api import Json
from sim.scenario.run import custom_resources, play
from sim.scenario.steps import Instant, Script, compile_script
from sim.scenario.world import World
from tests.support.plans import LLM

TRAIN = "test/PyTorchJob/train"


def training(workers: int, gpu: int = 1) -> Json:
    """A PyTorchJob whose pods do not restart."""
    container = {"name": "pytorch", "image": "x", "resources": {"limits": {"nvidia.com/gpu": str(gpu)}}}
    template = {"spec": {"containers": [container]}}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "train", "namespace": "test"},
        "spec": {
            "pytorchReplicaSpecs": {
                "Master": {"replicas": 1, "restartPolicy": "Never", "template": template},
                "Worker": {"replicas": workers, "restartPolicy": "Never", "template": template},
            }
        },
    }


def placement(workload: str = LLM, **assignments: Any) -> Json:
    """`c1=2`, or `c1=(2, 1)` with 1 of 2 bound, or `c1={…}` as it is in the document."""
    parts = []
    for name, value in assignments.items():
        if isinstance(value, Mapping):
            parts.append({"cluster": name, **value})
        else:
            count, bound = value if isinstance(value, tuple) else (value, None)
            parts.append({"cluster": name, "replicas": count, **({} if bound is None else {"bound": bound})})
    return {"apiVersion": "gpufleet.io/v1alpha1", "kind": "Placement", "workload": workload, "assignments": parts}


def script(
    documents: Sequence[Any],
    steps: Sequence[Mapping[str, Any]] = (),
    settings: Mapping[str, Any] | None = None,
    files: Mapping[str, Sequence[Json]] | None = None,
) -> Script:
    """A script of documents and steps as in a Scenario document; ``files`` are what its paths name."""
    scenario = {
        "apiVersion": "gpufleet.io/v1alpha1",
        "kind": "Scenario",
        "documents": list(documents),
        "steps": list(steps),
        "settings": dict(settings or {}),
    }
    [document] = load(dump([scenario]), "scenario.yaml")
    parsed = parse_documents([document])
    assert parsed.scenario is not None

    def read(path: str) -> list[Document]:
        if path not in (files or {}):
            raise FileNotFoundError(2, "No such file or directory", path)
        return load(dump((files or {})[path]), path)

    return compile_script(document, parsed.scenario, read)


def happen(
    documents: Sequence[Any], steps: Sequence[Mapping[str, Any]] = (), **settings: Any
) -> Iterator[tuple[Instant, World]]:
    """Yields the world after each instant."""
    made = script(documents, steps, settings)
    world = World(made.settings, custom_resources())
    for instant in play(made, world):
        yield instant, world


def ended(documents: Sequence[Any], steps: Sequence[Mapping[str, Any]] = (), **settings: Any) -> World:
    """The world after the last instant."""
    *_, (_, world) = happen(documents, steps, **settings)
    return world


def shares(world: World, workload: str = LLM) -> dict[str, int]:
    """Replicas by cluster."""
    return {share.cluster: share.replicas for share in placed(world, workload).shares}


def placed(world: World, workload: str = LLM) -> Placement:
    """The placement of a workload."""
    return next(found for found in world.placements() if found.workload == workload)


def pods(world: World, name: str, workload: str = LLM) -> list[Json]:
    """A workload's pods in a cluster."""
    found = world.members[name].shaped.view.list("v1", "Pod")
    return [p for p in found if (p["metadata"].get("annotations") or {}).get(WORKLOAD_ANNOTATION) == workload]


def running(world: World, name: str, workload: str = LLM) -> int:
    """How many of a workload's pods run in a cluster."""
    return sum(1 for pod in pods(world, name, workload) if pod["status"].get("phase") == "Running")


def nodes(world: World, name: str) -> list[str]:
    """The names of a cluster's nodes."""
    return [node["metadata"]["name"] for node in world.members[name].shaped.view.list("v1", "Node")]


def free_gpus(world: World, name: str) -> dict[int, int]:
    """How many nodes of a cluster have how many free GPUs, as inventory sees it; full nodes count as 0."""
    cache = world.members[name].inventory.cache
    found: dict[int, int] = {}
    for class_name in cache.class_names():
        seen = cache.node_class(class_name)
        assert seen is not None
        for block in seen.free:
            gpus = dict(block.free).get("nvidia.com/gpu", 0)
            found[gpus] = found.get(gpus, 0) + block.nodes
        listed = sum(block.nodes for block in seen.free)
        if seen.nodes > listed:
            found[0] = found.get(0, 0) + seen.nodes - listed
    return found
