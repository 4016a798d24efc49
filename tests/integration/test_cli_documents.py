"""What the command line says about bad documents and bad usage, where nothing runs: messages, streams, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpufleet.cli.output import Format
from tests.support.commands import gpufleet, gpufleet_program
from tests.support.system import cluster, deployment, job, policy

Json = dict[str, Any]

NOWHERE = "127.0.0.1:1"  # nothing listens on port 1


def changed(document: Json, path: str, value: Any) -> Json:
    """A deep copy with one field set; numbers in the path are list indexes."""
    copy: Json = json.loads(json.dumps(document))
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    here: Any = copy
    for part in parents:
        here = here[part]
    here[last] = value
    return copy


WEB, PLACES = deployment("web"), policy("all", "alpha")
LIMITS = "spec/template/spec/containers/0/resources/limits"
WEIGHTED = {
    "replicaSchedulingType": "Divided",
    "replicaDivisionPreference": "Weighted",
    "weightPreference": {"staticWeightList": [{"targetCluster": {"clusterNames": ["alpha"]}, "weight": -1}]},
}
# What was given, and what the message names: the document, the field, what is wrong, what would be right.
BAD: dict[str, tuple[Any, list[str]]] = {
    "no YAML": ("kind: [", ["line 2: is not YAML", "check the indentation"]),
    "no map": ("- 1\n- 2\n", ["is not a map", "a document starts with apiVersion and kind"]),
    "unknown kind": (changed(WEB, "kind", "Deploiment"), ["kind", "Deploiment", "Deployment"]),
    "no kind": ({"apiVersion": "apps/v1"}, ["kind", "missing"]),
    "unknown version": (changed(job("j"), "apiVersion", "kubeflow.org/v9"), ["apiVersion", "kubeflow.org/v1"]),
    "two affinities": (
        changed(PLACES, "spec/placement/clusterAffinities", [{"affinityName": "a", "clusterNames": ["alpha"]}]),
        ["spec.placement", "clusterAffinity", "clusterAffinities"],
    ),
    "negative weight": (
        changed(PLACES, "spec/placement/replicaScheduling", WEIGHTED),
        ["staticWeightList[0].weight", "-1"],
    ),
    "quantity": (changed(WEB, f"{LIMITS}/memory", "8Gx"), ["containers[0].resources.limits", "8Gx", "16Gi"]),
    "negative replicas": (changed(WEB, "spec/replicas", -1), ["spec.replicas", "-1"]),
    "no name": (changed(WEB, "metadata", {"namespace": "test"}), ["metadata.name"]),
}


@pytest.mark.parametrize("command", ["apply", "plan"])
@pytest.mark.parametrize("case", BAD)
def test_a_bad_document_is_refused_with_what_would_be_right(tmp_path: Path, command: str, case: str) -> None:
    document, said = BAD[case]
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(yaml.safe_dump(PLACES), encoding="utf-8")
    bad.write_text(document if isinstance(document, str) else yaml.safe_dump(document), encoding="utf-8")
    kafka = ["--kafka", NOWHERE] if command == "apply" else []
    done = gpufleet(command, "-f", good, "-f", bad, *kafka)
    assert (done.code, done.out) == (2, "")
    for text in [f"{bad}, document 1", *said]:
        assert text in done.err
    assert "good.yaml" not in done.err


def test_every_problem_is_said_at_once(tmp_path: Path) -> None:
    documents = [document for case, (document, _) in BAD.items() if isinstance(document, dict)]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    done = gpufleet("plan", "-f", tmp_path)
    assert done.code == 2
    for number in range(1, len(documents) + 1):
        assert f"document {number}," in done.err


def test_a_manifest_above_the_limit_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    large = changed(WEB, "metadata/annotations", {"data": "x" * (512 * 1024)})
    file = tmp_path / "large.yaml"
    file.write_text(yaml.safe_dump(large), encoding="utf-8")
    done = gpufleet("apply", "-f", file, "--kafka", NOWHERE)
    assert (done.code, done.out) == (2, "")
    assert f"{file}, document 1" in done.err and "has 513 KiB, more than the 512 KiB" in done.err


def test_what_would_be_left_behind_is_not_applied(tmp_path: Path) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "test"}}
    file = tmp_path / "web.yaml"
    file.write_text(yaml.safe_dump_all([cluster("alpha"), PLACES, WEB, service]), encoding="utf-8")
    done = gpufleet("apply", "-f", file, "--kafka", NOWHERE)
    assert (done.code, done.out) == (2, "")
    assert f"{file}, document 4: Service web is neither placed nor read by gpufleet" in done.err
    planned = gpufleet("plan", "-f", file, "-o", "name")
    assert (planned.code, planned.out) == (0, "test/Deployment/web\n")
    assert "document 4, line" in planned.err and "the document is ignored" in planned.err


def test_a_cluster_of_another_control_plane_is_not_registered(tmp_path: Path) -> None:
    file = tmp_path / "theirs.yaml"
    theirs = {"apiVersion": "cluster.karmada.io/v1alpha1", "kind": "Cluster", "metadata": {"name": "m"}}
    file.write_text(yaml.safe_dump(theirs), encoding="utf-8")
    done = gpufleet("apply", "-f", file, "--kafka", NOWHERE)
    assert (done.code, done.out) == (2, "")
    assert "register it as a Cluster of gpufleet.io/v1alpha1 with its spec.access" in done.err


def test_the_program_itself(tmp_path: Path) -> None:
    """The same as above through the installed console script, once."""
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump(BAD["quantity"][0]), encoding="utf-8")
    inside, outside = gpufleet("plan", "-f", file), gpufleet_program("plan", "-f", file)
    assert inside == outside
    assert gpufleet_program("plan", "-f", "-", stdin=yaml.safe_dump_all([PLACES, cluster("alpha"), WEB])).code == 0


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["frobnicate"], "frobnicate"),
        (["plan"], "--filename"),
        (["plan", "-f", "no-such-file.yaml"], "no-such-file.yaml: No such file"),
        (["plan", "-f", "-", "-o", "xml"], "xml"),
        (["get", "pods"], "pods"),
        (["delete"], "name workloads"),
        (["delete", "web", "--kafka", NOWHERE], "namespace/Kind/name"),
        (["scale", "test/Deployment/web"], "--replicas or --reset"),
        (["scale", "test/Deployment/web", "--replicas", "-1"], "--replicas"),
        (["dlq", "replay"], "--all"),
        (["dlq", "replay", "a/0/1", "--value", "no-such-file"], "no-such-file: No such file"),
        (["up", "--kubeconfig", "nonsense"], "NAME=PATH"),
        (["get", "workloads", "--kafka", "nonsense"], "host:port"),
    ],
)
def test_bad_usage_ends_with_2(arguments: list[str], said: str) -> None:
    done = gpufleet(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ") and said in done.err


def test_without_arguments_it_shows_its_help() -> None:
    done = gpufleet()
    assert done.code == 2
    assert "Usage: gpufleet" in done.out + done.err
    assert "error:" not in done.out + done.err


def test_no_broker_ends_with_3_and_one_line() -> None:
    done = gpufleet_program(
        "get", "workloads", "--kafka", NOWHERE, environment={"GPUFLEET_KAFKA_CONNECT_TIMEOUT": "0.5"}
    )
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith(f"error: Kafka at {NOWHERE} cannot be used")
    assert "nothing listens there" in done.err
    assert done.err.count("\n") == 1


# -- warnings, which do not fail -------------------------------------------------------------------------------------


def test_two_policies_for_one_workload_are_warned_of() -> None:
    documents = yaml.safe_dump_all([cluster("alpha"), policy("first", "alpha"), policy("second", "alpah"), WEB])
    done = gpufleet("plan", "-f", "-", "-o", "json", stdin=documents)
    assert done.code == 0
    assert "warning: -, document 4" in done.err
    assert "no cluster is called 'alpah'; did you mean alpha?" in done.err
    assert "PropagationPolicy/test/first and by PropagationPolicy/test/second; only" in done.err
    assert json.loads(done.out)


def test_the_articles_misplaced_field_is_accepted_with_a_warning() -> None:
    misplaced = policy("all", "alpha")
    misplaced["spec"]["replicaScheduling"] = misplaced["spec"]["placement"].pop("replicaScheduling")
    done = gpufleet("plan", "-f", "-", "-o", "json", stdin=yaml.safe_dump_all([cluster("alpha"), misplaced, WEB]))
    assert done.code == 0
    assert "warning: " in done.err and "spec.replicaScheduling" in done.err
    (placement,) = json.loads(done.out)["steps"][0]["placements"]
    assert placement["verdict"] == "Scheduled"


def test_a_plan_with_nothing_to_place_on_says_so() -> None:
    done = gpufleet("plan", "-f", "-", "-o", "json", stdin=yaml.safe_dump_all([PLACES, WEB]))
    assert done.code == 0
    assert "no Cluster documents" in done.err
    (placement,) = json.loads(done.out)["steps"][0]["placements"]
    assert (placement["verdict"], placement["placed"]) == ("Unschedulable", 0)


# -- output ----------------------------------------------------------------------------------------------------------

READERS: dict[Format, Callable[[str], Any]] = {
    Format.JSON: json.loads,
    Format.YAML: lambda text: list(yaml.safe_load_all(text)),
    Format.NAME: str.split,
    Format.TABLE: lambda text: [line.split() for line in text.splitlines()],
    Format.WIDE: lambda text: [line.split() for line in text.splitlines()],
}


@pytest.mark.parametrize("format_", list(Format))
def test_every_format_of_a_plan_can_be_read(format_: Format) -> None:
    done = gpufleet("plan", "-f", "-", "-o", format_, stdin=yaml.safe_dump_all([cluster("alpha"), PLACES, WEB]))
    assert (done.code, done.err) == (0, "")
    read = READERS[format_](done.out)
    match format_:
        case Format.JSON:
            assert read["steps"][0]["placements"][0]["workload"] == "test/Deployment/web"
        case Format.YAML:
            assert read[0]["workload"] == "test/Deployment/web"
        case Format.NAME:
            assert read == ["test/Deployment/web"]
        case _:
            assert "test/Deployment/web" in read[1]


def test_the_table_of_a_plan_says_why_something_is_not_placed() -> None:
    full = changed(cluster("alpha"), "status/nodeClasses/0/nodes", 0)
    there, full_up, nobodys = (
        gpufleet("plan", "-f", "-", stdin=yaml.safe_dump_all(documents)).out.splitlines()[1].split()
        for documents in ([cluster("alpha"), PLACES, WEB], [full, PLACES, WEB], [cluster("alpha"), WEB])
    )
    assert there[-1].startswith("alpha=")
    assert full_up[-1] == "InsufficientResources"
    assert nobodys[-1] == "NoMatchingPolicy"


def test_what_plan_prints_is_taken_back_by_plan() -> None:
    documents = [cluster("alpha"), PLACES, WEB]
    first = gpufleet("plan", "-f", "-", "-o", "yaml", stdin=yaml.safe_dump_all(documents))
    again = gpufleet("plan", "-f", "-", "-o", "yaml", stdin=yaml.safe_dump_all(documents) + "---\n" + first.out)
    assert (again.code, again.err) == (0, "")
    assert list(yaml.safe_load_all(again.out)) == list(yaml.safe_load_all(first.out))


def test_a_failed_expectation_ends_simulate_with_1(tmp_path: Path) -> None:
    scenario = {
        "apiVersion": "gpufleet.io/v1alpha1",
        "kind": "Scenario",
        "documents": [cluster("alpha"), PLACES, WEB],
        "steps": [{"at": "1s", "expect": {"test/Deployment/web": {"verdict": "Unschedulable"}}}],
    }
    file = tmp_path / "scenario.yaml"
    file.write_text(yaml.safe_dump(scenario), encoding="utf-8")
    done = gpufleet("simulate", file, "-o", "json")
    assert done.code == 1
    assert json.loads(done.out)["steps"][0]["at"] == "0s"
    assert "test/Deployment/web" in done.err and "Unschedulable" in done.err and "Scheduled" in done.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_produced(shell: str) -> None:
    done = gpufleet_program(environment={"_GPUFLEET_COMPLETE": f"source_{shell}"})
    assert (done.code, done.err) == (0, "")
    assert "gpufleet" in done.out and f"complete_{shell}" in done.out


def test_completion_completes() -> None:
    words = {"COMP_WORDS": "gpufleet dl", "COMP_CWORD": "1", "_GPUFLEET_COMPLETE": "complete_bash"}
    assert gpufleet_program(environment=words).out.split() == ["dlq"]
