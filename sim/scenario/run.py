"""Runs a script to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gpufleet.model import kinds
from gpufleet.model.placement import Placement
from gpufleet.wire.yaml import load
from services.scheduler.core.outputs import HistoryEntry
from sim.model.api import Json
from sim.model.controllers.declared import definition
from sim.scenario.expect import failures
from sim.scenario.steps import Instant, Script
from sim.scenario.world import START, World

CRDS = Path(__file__).parents[1] / "crds"


@dataclass(slots=True)
class Outcome:
    """The placements at each distinct time (seconds from the start), and the expectations that were not met."""

    steps: list[tuple[float, list[Placement]]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def custom_resources() -> list[Json]:
    """Returns the CustomResourceDefinitions of the job kinds, and of kinds that are declared."""
    paths = sorted(CRDS.glob("*.yaml"))
    builtin = [dict(document.manifest) for path in paths for document in load(path.read_bytes(), path.name)]
    return [*builtin, *(definition(declaration) for declaration in kinds.declared_kinds() if declaration.group)]


def play(script: Script, world: World) -> Iterator[Instant]:
    """Lets a script happen in a world, and yields each of its instants once everything that is due then is done.

    Raises `sim.scenario.world.Restless` where an instant has no end.
    """
    world.start(script.start)
    for instant in script.instants:
        until = START + instant.at
        wake_at = world.wake_at()
        while wake_at is not None and wake_at < until:
            world.arrive(wake_at)
            world.settle()
            wake_at = world.wake_at()
        world.arrive(until)
        for deed in instant.deeds:
            world.do(deed)
        world.settle()
        yield instant


def run(script: Script, decided: Callable[[HistoryEntry], None] | None = None) -> Outcome:
    """Returns what became of everything; ``decided`` is told of every decision.

    Raises `sim.scenario.world.Restless`.
    """
    outcome = Outcome(warnings=list(script.warnings))
    with kinds.declaring(script.kinds):
        world = World(script.settings, custom_resources(), decided=decided)
        for instant in play(script, world):
            placements = world.placements()
            outcome.steps.append((instant.at, placements))
            outcome.failures += failures(instant.checks, {p.workload: p for p in placements}, instant.at)
        outcome.warnings += world.warnings
    return outcome
