"""Scenario documents: what is read before anything runs, what is said of mistakes, and what the command prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from gpufleet.cli import main
from gpufleet.cli.errors import CliError, Exit
from gpufleet.cli.files import load_documents
from gpufleet.cli.output import Format
from gpufleet.cli.plan import seconds, simulate
from gpufleet.wire.documents import DocumentErrors, parse_documents
from gpufleet.wire.yaml import dump
from sim.plan import plan
from sim.scenario.run import run
from sim.scenario.settings import SETTINGS, ScenarioSettings
from tests.support.plans import LLM, cluster, deployment, policy
from tests.support.scenarios import placement, script

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = ("fleet.yaml", "policies.yaml", "llm.yaml")
FLEET = [cluster("c1", 8), policy(["c1"])]


def problems(
    steps: Sequence[Mapping[str, Any]] = (),
    settings: Mapping[str, Any] | None = None,
    documents: Sequence[Any] = (*FLEET, deployment(2)),
) -> list[str]:
    with pytest.raises(DocumentErrors) as caught:
        script(documents, steps, settings)
    return [str(error) for error in caught.value.errors]


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "path", "says"),
    [
        ({"scale": {"workload": "test/Deployment/x", "replicas": 1}}, "steps[0].scale.workload", "known are " + LLM),
        ({"delete": "test/Deployment/x"}, "steps[0].delete", "was not submitted before"),
        ({"reschedule": "test/Deployment/x"}, "steps[0].reschedule", "was not submitted before"),
        ({"patch": {"cluster": "c9", "merge": {}}}, "steps[0].patch.cluster", "known are c1"),
        ({"pods": {"workload": LLM, "cluster": "c9", "failed": 1}}, "steps[0].pods.cluster", "known are c1"),
        (
            {"patch": {"cluster": "c1", "merge": {"status": {"health": "Gone"}}}},
            "steps[0].patch.merge.status.health",
            "Ready",
        ),
        ({"patch": {"cluster": "c1", "merge": {"metadata": {"name": "c2"}}}}, "merge.metadata.name", "must stay"),
        ({"apply": ["nothing.yaml"]}, "steps[0].apply[0]", "No such file or directory"),
        ({"apply": [placement(c1=1)]}, "steps[0].apply", "list it in documents"),
        ({"apply": [{"apiVersion": "v1", "kind": "Nothing"}]}, "steps[0].apply[0].kind", "not a known kind"),
    ],
)
def test_a_mistake_in_a_step_names_its_place(step: Mapping[str, Any], path: str, says: str) -> None:
    found = problems([{"at": "10s", **step}])
    assert len(found) == 1
    assert "scenario.yaml, document 1, line" in found[0]
    assert path in found[0]
    assert says in found[0]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"unreachableafter": "10s"}, "did you mean unreachableAfter?"),
        ({"nothing": 1}, "known are backoffFirst"),
        ({"checkEvery": "soon"}, "is not a duration"),
        ({"checkEvery": 0}, "more than 0"),
        ({"maxRedispatch": "3s"}, "whole number"),
        ({"maxRedispatch": -1}, "whole number"),
    ],
)
def test_a_mistake_in_the_settings_names_its_place(settings: Mapping[str, Any], says: str) -> None:
    [found] = problems(settings=settings)
    assert f"settings.{next(iter(settings))}" in found
    assert says in found


def test_every_mistake_is_said_at_once() -> None:
    found = problems([{"at": 1, "delete": "a/b/c"}, {"at": 2, "apply": ["x.yaml"]}], {"checkEvery": -1})
    assert len(found) == 3


def test_every_setting_is_taken() -> None:
    given = dict.fromkeys(SETTINGS, 7)
    taken = script([], settings=given).settings
    for setting in SETTINGS.values():
        assert getattr(getattr(taken, setting.part), setting.field) == 7


def test_a_field_that_a_patch_does_not_know_is_warned_about() -> None:
    steps = [{"at": 1, "patch": {"cluster": "c1", "merge": {"status": {"helth": "Unreachable"}}}}]
    [warning] = script([*FLEET, deployment(2)], steps).warnings
    assert "steps[0].patch.merge.status.helth: is not a known field and is ignored; did you mean health?" in warning


def test_a_cluster_as_karmada_prints_it_can_be_patched() -> None:
    theirs = {
        "apiVersion": "cluster.karmada.io/v1alpha1",
        "kind": "Cluster",
        "metadata": {"name": "m1"},
        "status": {"resourceSummary": {"allocatable": {"nvidia.com/gpu": "2", "pods": "10"}}},
    }
    more = {"status": {"resourceSummary": {"allocatable": {"nvidia.com/gpu": "3"}}}}
    steps = [{"at": 5, "patch": {"cluster": "m1", "merge": more}}]
    made = script([theirs, policy(), deployment(4)], steps)
    assert len(made.warnings) == 1, "what was said of the document is not said again of each patch"
    assert [found[0].placed for _, found in run(made).steps] == [2, 3]


# -- order -------------------------------------------------------------------------------------------------------------


def test_steps_are_in_order_of_time_and_of_the_file() -> None:
    documents = [*FLEET, deployment(2)]
    steps: list[dict[str, Any]] = [
        {"at": "1m", "scale": {"workload": LLM, "replicas": 3}},
        {"at": "500ms", "scale": {"workload": LLM, "replicas": 4}},
        {"at": 60, "scale": {"workload": LLM, "replicas": 5}},
    ]
    outcome = run(script(documents, steps))
    assert [(at, [p.replicas for p in found]) for at, found in outcome.steps] == [(0.0, [2]), (0.5, [4]), (60.0, [5])]


def test_what_happens_at_the_start_is_part_of_the_first_state() -> None:
    outcome = run(script(FLEET, [{"at": 0, "apply": ["llm.yaml"]}], files={"llm.yaml": [deployment(2)]}))
    assert [(at, [p.placed for p in found]) for at, found in outcome.steps] == [(0.0, [2])]


def test_a_cluster_can_be_applied_again_and_be_new() -> None:
    steps = [
        {"at": 10, "apply": [cluster("c1", 8, 8), cluster("c2", 8)]},
        {"at": 20, "apply": [policy(["c1"], ["c2"])]},
        {"at": 30, "apply": [{k: v for k, v in cluster("c1").items() if k != "status"}]},
    ]
    outcome = run(script([*FLEET, deployment(20)], steps))
    assert [found[0].placed for _, found in outcome.steps] == [8, 16, 20, 20]


# -- expectations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "line"),
    [
        ({"verdict": "Unschedulable"}, "verdict: expected Unschedulable, is Scheduled"),
        ({"replicas": 3}, "replicas: expected 3, is 2"),
        ({"placed": 0}, "placed: expected 0, is 2"),
        ({"unplaced": 1}, "unplaced: expected 1, is 0"),
        ({"assignments": {"c1": 1}}, "assignments: expected {c1: 1}, is {c1: 2}"),
        ({"assignments": {"c1": 2, "c2": 1}}, "assignments: expected {c1: 2, c2: 1}, is {c1: 2}"),
        ({"assignments": {}}, "assignments: expected {}, is {c1: 2}"),
        ({"queuePosition": 1}, "queuePosition: expected 1, is None"),
        ({"reasons": [{"code": "NoStock"}]}, "reasons: expected NoStock, are none"),
    ],
)
def test_an_expectation_that_is_not_met_shows_the_difference(expected: Mapping[str, Any], line: str) -> None:
    outcome = run(script([*FLEET, deployment(2)], [{"at": 5, "expect": {LLM: expected}}]))
    [failure] = outcome.failures
    head, *lines = failure.splitlines()
    assert head.startswith("scenario.yaml, line ")
    assert head.endswith(f"at 5s {LLM} is not as expected")
    assert lines == [f"  {line}"]


def test_only_what_is_named_is_expected_and_zeros_are_no_assignments() -> None:
    steps: list[dict[str, Any]] = [
        {"at": 5, "expect": {LLM: {}}},
        {"at": 5, "expect": {LLM: {"assignments": {"c1": 2, "c2": 0}}}},
    ]
    assert run(script([*FLEET, deployment(2)], steps)).failures == []


def test_a_workload_without_placement_has_no_assignments_and_no_verdict() -> None:
    other = "test/Deployment/other"
    steps = [
        {"at": 5, "expect": {other: {"assignments": {}, "placed": 0}}},
        {"at": 6, "expect": {other: {"verdict": "Scheduled"}}},
    ]
    [failure] = run(script([*FLEET, deployment(2)], steps)).failures
    assert "verdict: expected Scheduled, is (no placement)" in failure


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A scenario in a folder of its own, with a path relative to it and two expectations that fail."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "fleet.yaml").write_text(dump(FLEET))
    (tmp_path / "parts" / "llm.yaml").write_text(dump([deployment(2)]))
    scenario = {
        "apiVersion": "gpufleet.io/v1alpha1",
        "kind": "Scenario",
        "documents": ["parts/fleet.yaml"],
        "steps": [
            {"at": "90s", "apply": ["parts/llm.yaml"]},
            {"at": "90s", "expect": {LLM: {"assignments": {"c1": 2}}}},
            {"at": "2m", "expect": {LLM: {"placed": 1}}},
            {"at": "3m", "expect": {LLM: {"verdict": "Queued"}}},
        ],
    }
    path = tmp_path / "scenario.yaml"
    path.write_text(dump([scenario]))
    return path


def test_the_command_prints_every_state_and_fails(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CliError) as caught:
        simulate(str(written), Format.JSON)
    assert caught.value.code is Exit.FAILED
    message = str(caught.value)
    assert message.startswith("2 expectations failed")
    assert "placed: expected 1, is 2" in message
    assert "verdict: expected Queued, is Scheduled" in message
    printed = json.loads(capsys.readouterr().out)
    assert list(printed) == ["steps"]
    assert [step["at"] for step in printed["steps"]] == ["0s", "90s", "120s", "180s"]
    assert printed["steps"][0] == {"at": "0s", "placements": []}
    assert printed["steps"][1]["placements"] == [
        {
            "apiVersion": "gpufleet.io/v1alpha1",
            "kind": "Placement",
            "workload": LLM,
            "verdict": "Scheduled",
            "replicas": 2,
            "placed": 2,
            "unplaced": 0,
            "assignments": [
                {
                    "cluster": "c1",
                    "replicas": 2,
                    "components": {"main": 2},
                    "sources": {"running": 2, "elastic": 0, "virtual": 0},
                }
            ],
            "reasons": [],
            "policy": "PropagationPolicy/test/all",
        }
    ]


def test_the_exit_code_is_as_documented(
    written: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, code in (("scenario.yaml", 1), ("none.yaml", 2)):
        monkeypatch.setattr(sys, "argv", ["gpufleet", "simulate", str(written.parent / name), "-o", "json"])
        with pytest.raises(SystemExit) as ended:
            main.run()
        assert ended.value.code == code
        printed = capsys.readouterr()
        assert bool(printed.out) is (code == 1)
        assert ("expectations failed" if code == 1 else "No such file") in printed.err


EMPTY = {"apiVersion": "gpufleet.io/v1alpha1", "kind": "Scenario", "metadata": {"name": "x"}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has 0 Scenario documents"),
        (dump([cluster("c1", 8)]), "has 0 Scenario documents"),
        (dump([EMPTY, EMPTY]), "has 2 Scenario documents"),
        ("kind: [", "is not YAML"),
        (dump([EMPTY]) + "---\nkind: [\n", "document 2"),
        (dump([EMPTY | {"steps": [{"at": 1}]}]), "does nothing"),
    ],
)
def test_the_command_says_what_is_wrong_with_its_file(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(CliError) as caught:
        simulate(str(path), Format.JSON)
    assert caught.value.code is Exit.USAGE
    assert says in str(caught.value)


def test_documents_beside_the_scenario_are_there_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(dump([*FLEET, EMPTY | {"documents": [deployment(2)]}]))
    simulate(str(path), Format.NAME)
    assert capsys.readouterr().out == f"{LLM}\n"


@pytest.mark.parametrize(
    ("at", "text"), [(0.0, "0s"), (90.0, "90s"), (0.5, "0.5s"), (1_000_000.0, "1000000s"), (100.0, "100s")]
)
def test_times_are_written_as_seconds(at: float, text: str) -> None:
    assert seconds(at) == text


# -- what the documentation says ---------------------------------------------------------------------------------------


def test_every_setting_is_documented_with_its_default() -> None:
    text = (DOCS / "scenarios.md").read_text()
    rows = [line.split("|")[1:3] for line in text.split("## Settings")[1].splitlines() if line.startswith("| `")]
    documented = {}
    for names, defaults in rows:
        for name, default in zip(names.split(","), defaults.split(","), strict=True):
            documented[name.strip(" `")] = default.strip()
    assert documented.keys() == SETTINGS.keys()
    for name, setting in SETTINGS.items():
        value = getattr(getattr(ScenarioSettings(), setting.part), setting.field)
        if value is not None:
            assert documented[name] == (str(value) if setting.whole else f"{value:g}s")


def test_the_examples_can_be_planned() -> None:
    parsed = parse_documents([d for name in EXAMPLES for d in load_documents(str(DOCS / "examples" / name))])
    assert not parsed.warnings
    [found] = plan(parsed)
    assert (found.workload, found.verdict, found.placed) == (LLM, "Scheduled", 4)
