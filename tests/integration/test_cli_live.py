"""Commands on a running fleet, and what becomes of records that foreign producers send, good and bad.

The fleet is `gpufleet up --single-process`; the foreign producer is librdkafka.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
import yaml
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from tests.support.commands import GPUFLEET, Outcome, Up, gpufleet
from tests.support.system import cluster, deployment, job, key_of, policy
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(180)

Json = dict[str, Any]
Headers = dict[str, str | bytes | None]


class Live:
    """The running fleet, a producer, and the command bound to it."""

    def __init__(self, up: Up) -> None:
        self.up = up
        self.producer = confluent_kafka.Producer({"bootstrap.servers": up.bootstrap, "linger.ms": 0, "log_level": 0})

    def __call__(self, *arguments: str | Path, stdin: str = "") -> Outcome:
        return gpufleet(*arguments, stdin=stdin, kafka=self.up.bootstrap)

    def done(self, *arguments: str | Path, stdin: str = "") -> str:
        """What a command that must succeed prints."""
        outcome = self(*arguments, stdin=stdin)
        assert outcome.code == 0, f"{outcome.err}{outcome.out}"
        return outcome.out

    def produce(self, topic: str, key: str | None, value: bytes | None, headers: Headers | None = None) -> str:
        """One record from librdkafka, partition left to it; returns its origin."""
        places: list[str] = []

        def delivered(error: Any, message: Any) -> None:
            assert error is None, error
            places.append(f"{message.topic()}/{message.partition()}/{message.offset()}")

        self.producer.produce(f"gpufleet.{topic}", key=key, value=value, headers=headers, on_delivery=delivered)
        assert self.producer.flush(60) == 0
        return places[0]

    def placement(self, workload: str) -> Json | None:
        """The last decision as `get` shows it."""
        outcome = self("get", "placements", workload, "-o", "json")
        return json.loads(outcome.out)["items"][0] if outcome.code == 0 else None

    def until_placed(self, workload: str, count: int) -> Json:
        """Waits until so many replicas are placed."""

        def look() -> Json | None:
            placement = self.placement(workload)
            return placement if placement is not None and placement["placed"] == count else None

        found = wait_for(look, f"{workload} to have {count} replicas placed", timeout=60)
        assert found is not None
        return found

    def letters(self) -> dict[str, Json]:
        """All dead letters by origin."""
        return {x["origin"]: x for x in json.loads(self.done("dlq", "list", "--all", "-o", "json"))}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    home, fleet = tmp_path_factory.mktemp("up"), tmp_path_factory.mktemp("fleet") / "fleet.yaml"
    fleet.write_text(yaml.safe_dump_all([cluster("alpha"), cluster("beta")]), encoding="utf-8")
    settings = {
        "GPUFLEET_INVENTORY_HEARTBEAT": "2",
        "GPUFLEET_KAFKA_FETCH_WAIT_MS": "100",
        "GPUFLEET_KAFKA_SESSION_TIMEOUT": "4",
    }
    up = Up.start(home, "--fleet", fleet, "--single-process", settings=settings)
    try:
        running = Live(up)
        running.done("apply", "-f", "-", stdin=yaml.safe_dump(policy("all", "alpha", "beta")))
        yield running
    finally:
        up.close()


def doc(*documents: Json) -> str:
    return yaml.safe_dump_all(documents)


# -- foreign producers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encode", [json.dumps, yaml.safe_dump], ids=["json", "yaml"])
def test_a_bare_manifest_from_librdkafka_is_placed(live: Live, encode: Callable[[Json], str]) -> None:
    manifest = job(f"foreign-{encode.__module__.partition('.')[0]}")
    workload = key_of(manifest)
    live.produce("workloads", workload, encode(manifest).encode())
    live.until_placed(workload, 2)
    live.done("apply", "-f", "-", "--wait", stdin=doc(manifest))
    live.done("delete", workload)
    assert live.placement(workload) is None


WEB = deployment("bad")
TWO_AFFINITIES = policy("bad", "alpha")
TWO_AFFINITIES["spec"]["placement"]["clusterAffinities"] = [{"affinityName": "a", "clusterNames": ["alpha"]}]
NEGATIVE = policy("bad", "alpha")
NEGATIVE["spec"]["placement"]["replicaScheduling"]["weightPreference"] = {
    "staticWeightList": [{"targetCluster": {"clusterNames": ["alpha"]}, "weight": -1}]
}
QUANTITY = deployment("bad")
QUANTITY["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] = "8Gx"
POLICY_KEY, WORKLOAD_KEY = key_of(NEGATIVE), key_of(WEB)
# Topic, key, value; reason, field, and a part of the message.
BAD: dict[str, tuple[str, str | None, Any, str, str, str]] = {
    "not JSON": ("workloads", WORKLOAD_KEY, b'{"kind": ', "NotJson", "", "JSON"),
    "not a map": ("workloads", WORKLOAD_KEY, b"[1]", "WrongType", "", "object"),
    "bytes": ("workloads", WORKLOAD_KEY, b"\xff\x00\xfe", "NotJson", "", "JSON"),
    "null key": ("workloads", None, WEB, "MissingKey", "key", "namespace/Kind/name"),
    "other key": ("workloads", "test/Deployment/other", WEB, "KeyMismatch", "key", WORKLOAD_KEY),
    "unknown kind": ("workloads", WORKLOAD_KEY, WEB | {"kind": "Deploiment"}, "UnknownKind", "kind", "Deploiment"),
    "unknown version": (
        "workloads",
        WORKLOAD_KEY,
        {"schemaVersion": "v9", "manifest": WEB},
        "UnsupportedVersion",
        "schemaVersion",
        "v1",
    ),
    "quantity": (
        "workloads",
        WORKLOAD_KEY,
        QUANTITY,
        "InvalidValue",
        "spec.template.spec.containers[0].resources.limits.memory",
        "8Gx",
    ),
    "too large": ("workloads", WORKLOAD_KEY, WEB | {"x": "x" * 600_000}, "TooLarge", "", "524288"),
    "two affinities": ("policies", POLICY_KEY, TWO_AFFINITIES, "", "spec.placement", "clusterAffinities"),
    "negative weight": ("policies", POLICY_KEY, NEGATIVE, "", "staticWeightList[0].weight", "-1"),
    "cluster": ("clusters", "bad", {"name": "bad", "zones": "none"}, "WrongType", "zones", "list"),
    "scale": ("scales", WORKLOAD_KEY, {"workload": WORKLOAD_KEY, "replicas": -1}, "OutOfRange", "replicas", "-1"),
}
# Cases of BAD that are wrong in their headers only.
HEADERS: dict[str, Headers] = {
    "type of another version": {"ce_specversion": "1.0", "ce_type": "gpufleet.v2.Workload"},
    "schema of another version": {"ce_dataschema": "https://gpufleet.io/schemas/gpufleet.v2.Workload"},
    "type of another topic": {"ce_type": "gpufleet.v1.Scale"},
}
for _case, _reason, _path, _right in (
    ("type of another version", "UnsupportedVersion", "headers.ce_type", "gpufleet.v1"),
    ("schema of another version", "UnsupportedVersion", "headers.ce_dataschema", "gpufleet.v1"),
    ("type of another topic", "InvalidValue", "headers.ce_type", "gpufleet.v1.Workload"),
):
    BAD[_case] = ("workloads", WORKLOAD_KEY, WEB, _reason, _path, _right)


def test_bad_records_go_to_the_dead_letters_and_the_next_is_handled(live: Live) -> None:
    origins = {}
    for case, (topic, key, value, *_) in BAD.items():
        encoded = value if isinstance(value, bytes) else json.dumps(value).encode()
        origins[case] = live.produce(topic, key, encoded, HEADERS.get(case))
    good = deployment("after-bad", 2)
    live.done("apply", "-f", "-", "--wait", stdin=doc(good))
    wait_for(lambda: set(origins.values()) <= live.letters().keys(), "the dead letters")
    letters = live.letters()
    for case, (_, key, _, reason, path, text) in BAD.items():
        letter = letters[origins[case]]
        assert letter["key"] == key, case
        assert letter["reason"] == reason or not reason, (case, letter)
        assert path in letter["path"] and text in letter["error"], (case, letter)
        assert letter["state"] == "open", case
    listed = live.done("dlq", "list")
    assert listed.splitlines()[0].split() == ["ORIGIN", "KEY", "REASON", "AGE", "STATE", "ERROR"]
    assert set(live.done("dlq", "list", "-o", "name").split()) >= set(origins.values())
    shown = live.done("dlq", "show", origins["quantity"])
    assert "8Gx" in shown and "InvalidValue" in shown and '"kind": "Deployment"' in shown
    assert "dead letters" in live("doctor").out
    live.done("dlq", "drop", *(origin for case, origin in origins.items() if case != "quantity"))
    left = set(live.done("dlq", "list", "-o", "name").split())
    assert left & set(origins.values()) == {origins["quantity"]}
    live.done("delete", key_of(good))
    # What was never right was never there, until it is repaired.
    placement = live.placement(WORKLOAD_KEY)
    assert placement is None or placement["placed"] == 0


def test_a_repaired_record_is_put_back_and_placed(live: Live, tmp_path: Path) -> None:
    broken = deployment("mended", 3)
    broken["spec"]["replicas"] = "three"
    origin = live.produce("workloads", key_of(broken), json.dumps(broken).encode())
    letter = wait_for(lambda: live.letters().get(origin), "the dead letter")
    assert letter is not None and letter["path"] == "spec.replicas"
    value = tmp_path / "value.json"
    value.write_text(json.dumps(deployment("mended", 3)), encoding="utf-8")
    assert live.done("dlq", "replay", origin, "--value", value) == f"{origin} replayed\n"
    live.until_placed(key_of(broken), 3)
    assert live.letters()[origin]["state"] == "replayed"
    assert origin not in live.done("dlq", "list", "-o", "name")
    live.done("delete", key_of(broken))


def test_a_record_without_a_key_needs_one_to_be_put_back(live: Live) -> None:
    manifest = deployment("keyless", 1)
    origin = live.produce("workloads", None, json.dumps(manifest).encode())
    wait_for(lambda: live.letters().get(origin), "the dead letter")
    refused = live("dlq", "replay", origin)
    assert refused.code == 2 and "has no key" in refused.err
    live.done("dlq", "replay", origin, "--key", key_of(manifest))
    live.until_placed(key_of(manifest), 1)
    live.done("delete", key_of(manifest))


def test_a_policy_whose_record_becomes_unreadable_is_named_where_it_is_looked_for(live: Live) -> None:
    good = policy("named", "alpha")
    good["spec"]["resourceSelectors"] = [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "governed"}]
    live.done("apply", "-f", "-", stdin=doc(good))
    live.done("apply", "-f", "-", "--wait", stdin=doc(deployment("governed", 1), deployment("others", 1)))
    bad = good | {"spec": good["spec"] | {"placement": 3}}
    origin = live.produce("policies", key_of(good), json.dumps(bad).encode())
    wait_for(lambda: live.letters().get(origin), "the dead letter")
    for command in (
        ("get", "policies"),
        ("explain", "test/Deployment/governed"),
        ("describe", "test/Deployment/governed"),
    ):
        said = live(*command)
        assert said.code == 0 and key_of(good) in said.err and "spec.placement" in said.err, command
    assert live("explain", "test/Deployment/others").err == ""
    assert live.until_placed("test/Deployment/governed", 1)["assignments"], "what is placed stays"
    live.done("apply", "-f", "-", stdin=doc(good))
    wait_for(lambda: key_of(good) not in live("get", "policies").err, "the warning to go")
    live.done("dlq", "drop", origin)
    live.done("delete", "-f", "-", stdin=doc(deployment("governed"), deployment("others"), good))


def test_a_record_of_another_version_is_put_back_with_a_header_that_is_right(live: Live) -> None:
    manifest = deployment("versioned", 1)
    origin = live.produce(
        "workloads", key_of(manifest), json.dumps(manifest).encode(), {"ce_type": "gpufleet.v2.Workload"}
    )
    letter = wait_for(lambda: live.letters().get(origin), "the dead letter")
    assert letter is not None and letter["headers"]["ce_type"] == "gpufleet.v2.Workload"
    refused = live("dlq", "replay", origin, "--header", "ce_type")
    assert refused.code == 2 and "NAME=TEXT" in refused.err
    live.done("dlq", "replay", origin, "--header", "ce_type=gpufleet.v1.Workload")
    live.until_placed(key_of(manifest), 1)
    live.done("delete", key_of(manifest))


def test_a_workload_whose_record_becomes_unreadable_stays_as_it_was(live: Live, tmp_path: Path) -> None:
    manifest = deployment("stays", 2)
    workload = key_of(manifest)
    live.done("apply", "-f", "-", "--wait", stdin=doc(manifest))
    wait_for(lambda: _bound(live, workload) == 2, "inventory to show its pods")
    before, pods = live.until_placed(workload, 2), _pods(live, "stays")
    origin = live.produce("workloads", workload, b"oops: [")
    wait_for(lambda: live.letters().get(origin), "the dead letter")
    live.done("apply", "-f", "-", "--wait", stdin=doc(deployment("passes-by", 2)))
    live.done("delete", "test/Deployment/passes-by")
    after = live.placement(workload)
    assert after is not None and after["assignments"] == before["assignments"]
    assert _pods(live, "stays") == pods and len(pods) == 2
    value = tmp_path / "value.yaml"
    value.write_text(yaml.safe_dump(deployment("stays", 3)), encoding="utf-8")
    live.done("dlq", "replay", origin, "--value", value)
    live.until_placed(workload, 3)
    wait_for(lambda: len(_pods(live, "stays")) == 3 and pods <= _pods(live, "stays"), "the third pod beside the two")
    live.done("delete", workload)
    assert _pods(live, "stays") == set()


# -- submitting ------------------------------------------------------------------------------------------------------


def test_apply_tells_what_was_decided_on_stdout_and_the_rest_on_stderr(live: Live) -> None:
    done = live("apply", "-f", "-", "--wait", stdin=doc(deployment("told", 4)))
    assert done.code == 0
    assert done.out.splitlines()[-1] == ("test/Deployment/told: Scheduled, 4 of 4 placed: alpha=2, beta=2; 4 ready")
    assert "workload test/Deployment/told submitted" in done.err
    again = live("apply", "-f", "-", "--wait", stdin=doc(deployment("told", 4)))  # nothing is decided anew
    assert (again.code, again.out.splitlines()[-1]) == (0, done.out.splitlines()[-1])
    assert live.done("delete", "test/Deployment/told") == ""


def test_any_verdict_ends_with_0_and_a_wait_that_fails_with_1(live: Live) -> None:
    huge = doc(job("huge", gpus=64))
    done = live("apply", "-f", "-", stdin=huge)
    assert (done.code, "Unschedulable, 0 of 2 placed" in done.out) == (0, True)
    assert "NeverFits: needs 64 nvidia.com/gpu in one node, the largest node has 8" in done.err
    waited = live("apply", "-f", "-", "--wait", "--timeout", "0.5", stdin=huge)
    assert waited.code == 1
    assert "not ready within 0.5 s; `gpufleet explain test/PyTorchJob/huge` says why" in waited.err
    why = live.done("explain", "test/PyTorchJob/huge")
    assert why.startswith("test/PyTorchJob/huge is Unschedulable: 0 of 2 placed")
    assert "64" in why
    live.done("delete", "test/PyTorchJob/huge")
    unknown = live("delete", "test/PyTorchJob/huge")
    assert (unknown.code, "not found: workload test/PyTorchJob/huge" in unknown.err) == (2, True)


def test_a_second_policy_for_a_workload_is_warned_of(live: Live) -> None:
    second = policy("also-all", "alpah")
    done = live("apply", "-f", "-", stdin=doc(second, deployment("twofold", 1)))
    assert done.code == 0
    assert "no cluster is called 'alpah'; did you mean alpha?" in done.err
    assert "warning: -, document 2" in done.err
    assert "PropagationPolicy/test/all" in done.err and "PropagationPolicy/test/also-all" in done.err
    live.done("delete", "-f", "-", stdin=doc(second, deployment("twofold", 1)))


def test_scale_freeze_and_unfreeze(live: Live) -> None:
    workload = "test/Deployment/scaled"
    live.done("apply", "-f", "-", "--wait", stdin=doc(deployment("scaled", 2)))
    live.done("freeze", "--reason", "maintenance")
    live.done("scale", workload, "--replicas", "6")
    live.until_placed(workload, 6)
    live.done("scale", workload, "--reset")
    live.until_placed(workload, 2)
    live.done("unfreeze")
    live.done("scale", workload, "--replicas", "3")
    wait_for(lambda: len(_pods(live, "scaled")) == 3, "three pods")
    live.done("delete", workload)


# -- looking ---------------------------------------------------------------------------------------------------------


def test_a_plan_on_the_live_fleets_state_is_what_the_scheduler_then_decides(live: Live) -> None:
    standing = [deployment("base", 10), job("base-job", workers=3, gpus=2)]
    live.done("apply", "-f", "-", "--wait", stdin=doc(*standing))
    wait_for(lambda: _bound(live, *map(key_of, standing)) == 14, "inventory to show their pods")
    new = [deployment("next", 12, gpus=2), job("next-job", workers=2, gpus=4), job("too-large", workers=6, gpus=8)]
    fleet = live.done("get", "fleet", "-o", "yaml")
    planned = gpufleet("plan", "-f", "-", "-o", "json", stdin=fleet + "---\n" + doc(*new))
    assert planned.code == 0, planned.err
    forecast = {p["workload"]: p for p in json.loads(planned.out)["steps"][0]["placements"]}
    live.done("apply", "-f", "-", stdin=doc(*new))
    for manifest in [*standing, *new]:
        decided, expected = live.placement(key_of(manifest)), forecast[key_of(manifest)]
        assert decided is not None
        for field in ("verdict", "replicas", "placed", "unplaced"):
            assert decided[field] == expected[field], (key_of(manifest), field)
        assert [(a["cluster"], a["components"]) for a in decided["assignments"]] == [
            (a["cluster"], a["components"]) for a in expected["assignments"]
        ], key_of(manifest)
    live.done("delete", *map(key_of, [*standing, *new]))


@pytest.mark.parametrize("what", ["workloads", "placements", "clusters", "policies", "fleet"])
def test_every_format_of_get_can_be_read(live: Live, what: str) -> None:
    live.done("apply", "-f", "-", stdin=doc(deployment("shown", 1)))
    as_json = json.loads(live.done("get", what, "-o", "json"))["items"]
    as_yaml = list(yaml.safe_load_all(live.done("get", what, "-o", "yaml")))
    kinds = {"workloads": "Placement", "placements": "Placement", "clusters": "Cluster"}
    assert as_json and len(as_json) == len(as_yaml)
    if what in kinds:
        assert {d["kind"] for d in as_json} == {d["kind"] for d in as_yaml} == {kinds[what]}
    if what != "fleet":
        names = live.done("get", what, "-o", "name").split()
        assert len(names) == len(as_json)
        for format_ in ("table", "wide"):
            header, *rows = live.done("get", what, "-o", format_).splitlines()
            assert header == header.upper() and len(rows) == len(as_json)
        assert json.loads(live.done("get", what, names[0], "-o", "json"))["items"]
    unknown = live("get", what, "no-such")
    assert unknown.code == 2 or what in ("policies", "fleet")


def test_describe_a_workload_and_a_cluster(live: Live) -> None:
    live.done("apply", "-f", "-", "--wait", stdin=doc(deployment("shown", 2)))
    shown = live.done("describe", "test/Deployment/shown")
    assert "Verdict:   Scheduled, 2 of 2 placed" in shown and "PropagationPolicy/test/all" in shown
    assert "Health:    Ready" in live.done("describe", "alpha")
    live.done("delete", "test/Deployment/shown")


def test_watch_prints_again_when_something_changes(live: Live) -> None:
    command = [str(GPUFLEET), "get", "workloads", "--watch", "--kafka", live.up.bootstrap]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        try:
            assert watching.stdout.readline().startswith("WORKLOAD")
            live.done("apply", "-f", "-", stdin=doc(deployment("watched", 1)))
            assert any("test/Deployment/watched" in line for line in watching.stdout)
        finally:
            watching.send_signal(signal.SIGINT)
        _, errors = watching.communicate(timeout=30)
        assert (watching.returncode, errors) == (130, "")
    live.done("delete", "test/Deployment/watched")


def test_a_registered_cluster_without_its_kubeconfig_is_shown_and_does_no_harm(live: Live) -> None:
    ghost = {
        "apiVersion": "gpufleet.io/v1alpha1",
        "kind": "Cluster",
        "metadata": {"name": "ghost"},
        "spec": {"access": {"kubeconfig": "/nowhere/ghost.yaml"}},
    }
    live.done("apply", "-f", "-", stdin=doc(ghost))
    shown = wait_for(
        lambda: text if "/nowhere/ghost.yaml" in (text := live.done("get", "clusters", "ghost", "-o", "wide")) else "",
        "the cause to be shown",
    )
    assert "Ready" not in shown
    found = live("doctor")
    assert found.code == 1
    assert any(line.startswith("FAIL") and "ghost" in line and "/nowhere" in line for line in found.out.splitlines())
    live.done("apply", "-f", "-", "--wait", stdin=doc(deployment("meanwhile", 2)))
    live.done("delete", "test/Deployment/meanwhile")
    live.done("delete", "-f", "-", stdin=doc(ghost))
    wait_for(lambda: live("doctor").code == 0, "the doctor to be content")


def test_the_topics_are_in_line_with_the_registry(live: Live) -> None:
    assert live.done("topics", "diff") == "the broker is in line with the registry\n"
    assert "nothing to do" in live.done("topics", "apply")


def test_a_topic_of_another_version_is_named_because_nobody_reads_it(live: Live) -> None:
    admin = AdminClient({"bootstrap.servers": live.up.bootstrap})
    created = admin.create_topics(
        [NewTopic(name, num_partitions=1) for name in ("gpufleet.workloads.v2", "gpufleet.jobs", "other")]
    )
    for future in created.values():
        future.result(60)
    said = live("topics", "diff")
    assert said.code == 0 and said.out == "the broker is in line with the registry\n"
    assert (
        "gpufleet.workloads.v2 is no topic of this version, nobody reads it; produce to gpufleet.workloads" in said.err
    )
    assert "gpufleet.jobs is no topic" in said.err and "other" not in said.err
    assert "gpufleet.workloads.v2" in live("doctor").out


def test_every_decision_so_far_is_the_same_when_it_is_made_again(live: Live) -> None:
    workload = "test/Deployment/once-more"
    live.done("apply", "-f", "-", "--wait", stdin=doc(deployment("once-more", 2)))
    wait_for(lambda: workload in live.done("replay"), "the history to have its decision")
    made_again = live.done("replay", "-o", "json")  # exit code 1 if any were different
    assert {d["again"] for d in json.loads(made_again)["decisions"]} <= {"same", "follows"}
    told = live.done("explain", workload, "--at", "2999-01-01T00:00:00Z")
    assert told.startswith(f"{workload} is Scheduled: 2 of 2 placed")
    assert "made again it is same" in told
    live.done("delete", workload)


def test_ctrl_c_leaves_nothing(live: Live) -> None:
    """Last: it ends the fleet."""
    assert live.up.interrupt() == 0
    wait_for(lambda: not live.up.left(), "nothing to be left")


def _pods(live: Live, app: str) -> set[str]:
    found = set()
    for context in ("alpha", "beta"):
        command = ("get", "pods", "-n", "test", "-l", f"app={app}", "-o", "jsonpath={.items[*].metadata.uid}")
        found |= set(live.up.kubectl(context, *command).split())
    return found


def _bound(live: Live, *workloads: str) -> int:
    items = json.loads(live.done("get", "placements", *workloads, "-o", "json"))["items"]
    return sum(a.get("bound", 0) for item in items for a in item["assignments"])
