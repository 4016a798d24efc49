"""Every scenario of this folder, as `gpufleet simulate` runs it; what is expected is in the files."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from gpufleet.cli.files import load_documents
from gpufleet.wire.documents import parse_documents
from services.scheduler.core.outputs import HistoryEntry
from services.scheduler.history import Result, all_again, history
from sim.scenario.run import Outcome, run
from sim.scenario.steps import compile_script
from tests.support.decisions import through_json

FOLDER = Path(__file__).parent
EXAMPLE = FOLDER.parents[1] / "docs" / "examples" / "scenario.yaml"
SCENARIOS = [*sorted(FOLDER.glob("*.yaml")), EXAMPLE]


decisions: dict[Path, list[HistoryEntry]] = {}


@cache
def simulated(path: Path) -> Outcome:
    """One run for all tests of a scenario."""
    return simulate(path)


def simulate(path: Path) -> Outcome:
    decisions.pop(path, None)
    parsed = parse_documents(load_documents(str(path)))
    assert parsed.scenario is not None
    script = compile_script(
        parsed.objects[0].document, parsed.scenario, lambda name: load_documents(str(path.parent / name))
    )
    return run(script, decisions.setdefault(path, []).append)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    outcome = simulated(path)
    assert not outcome.failures, "\n".join(outcome.failures)
    # The first article's policy has replicaScheduling in the wrong place, which is taken with a warning.
    assert not [warning for warning in outcome.warnings if "vllm-deploy-pp.yaml" not in warning]
    # What is written of each decision is enough to make it again.
    for again in all_again([through_json(history(entry)) for entry in decisions[path]]):
        assert again.result is Result.SAME, (again.entry.workload, again.entry.version, again.told)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_expects_something_and_gives_the_same_twice(path: Path) -> None:
    assert "expect:" in path.read_text()
    assert simulate(path) == simulated(path)
