"""The dispatcher's core as a table: assignment x what the cluster holds x facts -> the next step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pytest

from gpufleet.kube.fencing import Stamp, fence_object, owned_by, stamp_of, stamped
from gpufleet.model import names
from gpufleet.model.placement import (
    Assignment,
    AssignmentState,
    Awaited,
    FailureClass,
    Observation,
    ObservedPhase,
    Version,
    WorkloadHealth,
)
from services.dispatcher.core import pods, render
from services.dispatcher.core.steps import (
    RELEASED_LABEL,
    STATUS_BYTES,
    Baseline,
    Create,
    CreateNamespace,
    Delete,
    Done,
    Facts,
    Live,
    Release,
    Superseded,
    Update,
    brief,
    held_by_other,
    next_step,
    observation,
    release_patch,
)
from tests.support import manifests
from tests.support.hands import LOG, assigned, batch_job, removal

HERE = "uid-of-kube-system"
FACTS = Facts(LOG, HERE)
FROZEN = Facts(LOG, HERE, frozen=True)
DEPLOYMENT = assigned(manifests.deployment(2), version=(3, 5))
JOB = assigned(batch_job(2), version=(3, 5))
PYTORCH = assigned(manifests.pytorch(1), version=(3, 5))
SPARK = assigned(manifests.spark(), version=(3, 5))

Json = dict[str, Any]


def stamp(epoch: int = 3, version: int = 5, log: str = LOG) -> Stamp:
    return Stamp(log, epoch, version)


def served(obj: Mapping[str, Any], uid: str = "u1", version: str = "7", **metadata: Any) -> Json:
    """The object as the server returns it."""
    return {**obj, "metadata": {**obj["metadata"], "uid": uid, "resourceVersion": version, **metadata}}


def object_of(assignment: Assignment, by: Stamp | None = None, suspend: bool | None = None, **metadata: Any) -> Json:
    """An assignment's object in its cluster."""
    return served(stamped(render.render(assignment, suspend=suspend), by or stamp()), **metadata)


def fence_of(assignment: Assignment, by: Stamp | None = None, uid: str = "f1", **metadata: Any) -> Json:
    name = render.fence_name(assignment.workload)
    return served(fence_object(name, "test", by or stamp(), render.marks(assignment.workload)), uid, "3", **metadata)


def fenced(assignment: Assignment, suspend: bool | None = False, fence: Json | None = None, **metadata: Any) -> Json:
    """A job's object that its fence owns."""
    return owned_by(object_of(assignment, suspend=suspend, **metadata), fence or fence_of(assignment))


def with_status(obj: Json, **status: Any) -> Json:
    return {**obj, "status": status}


FOREIGN = served(DEPLOYMENT.manifest)
GOING: Any = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
COMPLETE = {"conditions": [{"type": "Complete", "status": "True"}]}


@dataclass(frozen=True)
class Row:
    """``expect``: the type of the step and, of a Done, phase and code."""

    name: str
    assignment: Assignment
    live: Live
    expect: Any
    facts: Facts = FACTS
    code: str = ""
    says: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


T = TypeVar("T", Assignment, Observation)


def changed(value: T, **fields: Any) -> T:
    return replace(value, **fields)


PENDING, APPLIED, REFUSED, GONE = (
    ObservedPhase.PENDING,
    ObservedPhase.APPLIED,
    ObservedPhase.REFUSED,
    ObservedPhase.GONE,
)
GONE_DEPLOYMENT, GONE_JOB = removal(DEPLOYMENT, (3, 6)), removal(JOB, (3, 6))
ENDED = Observation(
    JOB.workload, "c", Version(3, 4), APPLIED, incarnation=HERE, health=WorkloadHealth.SUCCEEDED, object_uid="u0"
)

ROWS = [
    # Something that is no job.
    Row("nothing is there", DEPLOYMENT, Live(), Create),
    Row("it is there as wanted", DEPLOYMENT, Live(object_of(DEPLOYMENT)), APPLIED),
    Row("an earlier version is there", DEPLOYMENT, Live(object_of(DEPLOYMENT, stamp(3, 4))), Update),
    Row("an earlier epoch with a higher version", DEPLOYMENT, Live(object_of(DEPLOYMENT, stamp(2, 99))), Update),
    Row("a later version is there", DEPLOYMENT, Live(object_of(DEPLOYMENT, stamp(3, 6))), Superseded),
    Row("a later epoch with a lower version", DEPLOYMENT, Live(object_of(DEPLOYMENT, stamp(4, 0))), Superseded),
    Row("it is being deleted", DEPLOYMENT, Live(object_of(DEPLOYMENT, **GOING)), PENDING, code="WaitingForRemoval"),
    Row("somebody's", DEPLOYMENT, Live(FOREIGN), REFUSED, code="Conflict", says="by somebody else"),
    Row(
        "another log's, though of a higher version",
        DEPLOYMENT,
        Live(object_of(DEPLOYMENT, stamp(9, 9, "old"))),
        REFUSED,
        code="Conflict",
        says="another log (old)",
    ),
    Row("somebody's, to be overwritten", changed(DEPLOYMENT, conflict_overwrite=True), Live(FOREIGN), Update),
    Row(
        "an adopted log's",
        DEPLOYMENT,
        Live(object_of(DEPLOYMENT, stamp(9, 9, "old"))),
        Update,
        Facts(LOG, HERE, adopted_logs=frozenset({"old"})),
    ),
    Row(
        "a stamp that cannot be read is not ours",
        DEPLOYMENT,
        Live(served(DEPLOYMENT.manifest, annotations={names.VERSION_ANNOTATION: "{"})),
        REFUSED,
        code="Conflict",
    ),
    # Where it may not be brought.
    Row("no namespace", DEPLOYMENT, Live(namespace=False), PENDING, code="NamespaceMissing", says="createNamespaces"),
    Row("no namespace, allowed", changed(DEPLOYMENT, create_namespaces=True), Live(namespace=False), CreateNamespace),
    Row("suspended by its policy", changed(DEPLOYMENT, suspended=True), Live(), PENDING, code="Suspended"),
    Row("decided on another cluster", changed(DEPLOYMENT, incarnation="x"), Live(), PENDING, code="ClusterReplaced"),
    Row("a job on another cluster", changed(JOB, incarnation="x"), Live(), PENDING, code="ClusterReplaced", says="may"),
    Row("decided on this incarnation", changed(DEPLOYMENT, incarnation=HERE), Live(), Create),
    Row(
        "waits for another cluster",
        changed(
            JOB, state=AssignmentState.WAITING, waits_for=(Awaited("b", Version(3, 4)), Awaited("a", Version(3, 4)))
        ),
        Live(),
        PENDING,
        code="WaitingForRemoval",
        says="a, b",
    ),
    Row("no kind", changed(DEPLOYMENT, manifest={"kind": "X"}), Live(), REFUSED, code="DispatchRefused"),
    Row(
        "a job of an unknown kind",
        changed(JOB, manifest={"apiVersion": "v1", "kind": "X"}),
        Live(fence=fence_of(JOB)),
        PENDING,
        code="ApiNotServed",
        says="waits for its WorkloadKind",
    ),
    Row(
        "a patch that does not fit",
        changed(DEPLOYMENT, patches=({"op": "remove", "path": "/spec/nothing"},)),
        Live(),
        REFUSED,
        code="DispatchRefused",
        says="/spec/nothing",
    ),
    # A frozen fleet.
    Row("frozen, nothing is there", DEPLOYMENT, Live(), PENDING, FROZEN, "Frozen"),
    Row("frozen, as wanted", DEPLOYMENT, Live(object_of(DEPLOYMENT)), APPLIED, FROZEN),
    Row("frozen, drifted", DEPLOYMENT, Live({**object_of(DEPLOYMENT), "spec": {}}), APPLIED, FROZEN),
    Row("frozen, an earlier version", DEPLOYMENT, Live(object_of(DEPLOYMENT, stamp(3, 4))), PENDING, FROZEN, "Frozen"),
    Row("frozen, to be removed", GONE_DEPLOYMENT, Live(object_of(DEPLOYMENT)), PENDING, FROZEN, "Frozen"),
    Row("frozen, gone already", GONE_DEPLOYMENT, Live(), GONE, FROZEN),
    Row("frozen, a job not resumed", JOB, Live(fenced(JOB, suspend=True), fence_of(JOB)), PENDING, FROZEN, "Frozen"),
    # A job.
    Row("no fence", JOB, Live(), Create, extra={"kind": "ConfigMap"}),
    Row("a fence", JOB, Live(fence=fence_of(JOB)), Create, extra={"kind": "Job", "suspend": True}),
    Row(
        "a job that cannot start suspended",
        SPARK,
        Live(fence=fence_of(SPARK)),
        Create,
        extra={"kind": "SparkApplication"},
    ),
    Row(
        "suspended behind its fence",
        JOB,
        Live(fenced(JOB, suspend=True), fence_of(JOB)),
        Update,
        extra={"suspend": False},
    ),
    Row("running", JOB, Live(fenced(JOB), fence_of(JOB)), APPLIED),
    Row(
        "a PyTorchJob is suspended elsewhere",
        PYTORCH,
        Live(fence=fence_of(PYTORCH)),
        Create,
        extra={"kind": "PyTorchJob"},
    ),
    Row("its fence goes", JOB, Live(fenced(JOB), fence_of(JOB, **GOING)), PENDING, code="WaitingForRemoval"),
    Row("it goes itself", JOB, Live(fenced(JOB, **GOING), fence_of(JOB)), PENDING, code="WaitingForRemoval"),
    Row("its fence is gone", JOB, Live(fenced(JOB)), Delete, extra={"foreground": True}),
    Row("its fence is gone and it goes", JOB, Live(fenced(JOB, **GOING)), PENDING, code="WaitingForRemoval"),
    Row(
        "a copy of an earlier fence",
        JOB,
        Live(fenced(JOB), fence_of(JOB, uid="f2")),
        Delete,
        extra={"foreground": True},
    ),
    Row("ended", JOB, Live(with_status(fenced(JOB), **COMPLETE), fence_of(JOB)), APPLIED),
    Row("ended, drifted", JOB, Live(with_status(fenced(JOB, suspend=True), **COMPLETE), fence_of(JOB)), APPLIED),
    Row("ended, its fence is gone", JOB, Live(with_status(fenced(JOB), **COMPLETE)), APPLIED),
    Row("ended and swept away", JOB, Live(fence=fence_of(JOB)), APPLIED, Facts(LOG, HERE, last=ENDED)),
    Row("ended on another incarnation", JOB, Live(), Create, Facts(LOG, "new", last=ENDED)),
    Row("removed since it ended", JOB, Live(), Create, Facts(LOG, HERE, last=changed(ENDED, phase=GONE))),
    Row("a later fence", JOB, Live(fence=fence_of(JOB, stamp(3, 6))), Superseded),
    Row(
        "another log's fence",
        JOB,
        Live(fence=fence_of(JOB, stamp(1, 1, "old"))),
        REFUSED,
        code="Conflict",
        says="its fence",
    ),
    Row(
        "another log's fence, to be overwritten",
        changed(JOB, conflict_overwrite=True),
        Live(fence=fence_of(JOB, stamp(1, 1, "old"))),
        Update,
        extra={"kind": "ConfigMap"},
    ),
    Row(
        "somebody's job, to be overwritten",
        changed(JOB, conflict_overwrite=True),
        Live(served(JOB.manifest), fence_of(JOB)),
        Update,
        extra={"kind": "Job"},
    ),
    # Removals.
    Row("nothing to remove", GONE_DEPLOYMENT, Live(), GONE),
    Row("to be removed", GONE_DEPLOYMENT, Live(object_of(DEPLOYMENT)), Delete, extra={"foreground": False}),
    Row("going", GONE_DEPLOYMENT, Live(object_of(DEPLOYMENT, **GOING)), PENDING, code="WaitingForRemoval"),
    Row("not ours to remove", GONE_DEPLOYMENT, Live(FOREIGN), GONE),
    Row("another log's to remove", GONE_DEPLOYMENT, Live(object_of(DEPLOYMENT, stamp(1, 1, "old"))), GONE),
    Row("a later decision stays", GONE_DEPLOYMENT, Live(object_of(DEPLOYMENT, stamp(3, 7))), Superseded),
    Row("replaced since", changed(GONE_DEPLOYMENT, incarnation="x"), Live(FOREIGN), GONE, code="", says="replaced"),
    Row("a job's is replaced", changed(GONE_JOB, incarnation="x"), Live(), GONE, code="ClusterReplaced", says="may"),
    Row("the fence first", GONE_JOB, Live(fenced(JOB), fence_of(JOB)), Delete, extra={"kind": "ConfigMap"}),
    Row("the fence is going", GONE_JOB, Live(fenced(JOB), fence_of(JOB, **GOING)), PENDING, code="WaitingForRemoval"),
    Row("then the job, with its pods", GONE_JOB, Live(fenced(JOB)), Delete, extra={"kind": "Job", "foreground": True}),
    Row("then its pods", GONE_JOB, Live(pods=2), PENDING, code="WaitingForRemoval", says="2 of its pods"),
    Row("then it is gone", GONE_JOB, Live(), GONE),
    Row("let go", changed(GONE_DEPLOYMENT, orphan=True), Live(object_of(DEPLOYMENT)), Release),
    Row("let go already", changed(GONE_DEPLOYMENT, orphan=True), Live(FOREIGN), GONE, says="no longer managed"),
    Row("a job let go", changed(GONE_JOB, orphan=True), Live(fenced(JOB), fence_of(JOB)), Release),
    Row(
        "then its fence",
        changed(GONE_JOB, orphan=True),
        Live(served(JOB.manifest), fence_of(JOB)),
        Delete,
        extra={"kind": "ConfigMap"},
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_next_step(row: Row) -> None:
    step = next_step(row.assignment, row.facts, row.live)
    if isinstance(row.expect, ObservedPhase):
        assert isinstance(step, Done), step
        assert (step.phase, step.code) == (row.expect, row.code)
        assert row.says in step.message
    else:
        assert isinstance(step, row.expect), step
    target: Any = getattr(step, "obj", None) or getattr(step, "live", None) or {}
    for name, value in row.extra.items():
        match name:
            case "kind":
                assert target["kind"] == value
            case "suspend":
                assert target["spec"]["suspend"] is value
            case _:
                assert getattr(step, name) == value


def test_the_same_question_has_the_same_answer() -> None:
    for row in ROWS:
        assert next_step(row.assignment, row.facts, row.live) == next_step(row.assignment, row.facts, row.live)


def test_what_is_created_is_stamped_marked_and_owned() -> None:
    step = next_step(JOB, FACTS, Live(fence=fence_of(JOB)))
    assert isinstance(step, Create)
    assert stamp_of(step.obj) == stamp()
    metadata = step.obj["metadata"]
    assert metadata["labels"][names.WORKLOAD_LABEL] == names.workload_label(JOB.workload)
    assert [owner["uid"] for owner in metadata["ownerReferences"]] == ["f1"]
    template = step.obj["spec"]["template"]["metadata"]
    assert template["labels"][names.COMPONENT_LABEL] == names.MAIN
    assert template["annotations"][names.WORKLOAD_ANNOTATION] == JOB.workload


def test_an_update_is_bound_to_what_was_read() -> None:
    live = object_of(DEPLOYMENT, stamp(3, 4))
    step = next_step(DEPLOYMENT, FACTS, Live(live))
    assert isinstance(step, Update)
    assert step.live is live


def test_how_the_server_writes_it_is_no_drift() -> None:
    """A webhook adds a container to the template: seen once in the answer to our write, it is taken for good."""
    sent = next_step(DEPLOYMENT, FACTS, Live())
    assert isinstance(sent, Create)
    answer = object_of(DEPLOYMENT)
    containers = answer["spec"]["template"]["spec"]["containers"]
    injected = [*containers, {"name": "sidecar", "image": "s"}]
    spec = answer["spec"]
    answer["spec"] = {**spec, "template": {**spec["template"], "spec": {"containers": injected}}}
    assert isinstance(next_step(DEPLOYMENT, FACTS, Live(answer)), Update)
    baseline = Baseline(sent.obj, answer)
    assert isinstance(next_step(DEPLOYMENT, FACTS, Live(answer, baseline=baseline)), Done)
    # But a change of what we want, or of another field, is none.
    assert isinstance(next_step(DEPLOYMENT, FACTS, Live(answer, baseline=Baseline({}, answer))), Update)
    scaled = {**answer, "spec": {**answer["spec"], "replicas": 9}}
    assert isinstance(next_step(DEPLOYMENT, FACTS, Live(scaled, baseline=baseline)), Update)


def test_a_created_job_is_resumed_though_it_is_as_the_server_answered() -> None:
    suspended = fenced(JOB, suspend=True)
    sent = next_step(JOB, FACTS, Live(fence=fence_of(JOB)))
    assert isinstance(sent, Create)
    assert isinstance(
        next_step(JOB, FACTS, Live(suspended, fence_of(JOB), baseline=Baseline(sent.obj, suspended))), Update
    )


def queued(manager: str, suspend: bool) -> Json:
    """The job with `suspend` as a queue in the cluster has set it."""
    managed = [
        {"manager": names.FIELD_MANAGER, "fieldsV1": {"f:spec": {"f:parallelism": {}}}},
        {"manager": manager, "fieldsV1": {"f:spec": {"f:suspend": {}}}},
        {"manager": "controller", "subresource": "status", "fieldsV1": {"f:status": {}}},
    ]
    return fenced(JOB, suspend=suspend, managedFields=managed)


def test_a_queue_in_the_cluster_may_suspend_a_job() -> None:
    assert isinstance(next_step(JOB, FACTS, Live(queued("kueue", True), fence_of(JOB))), Done)
    assert isinstance(next_step(JOB, FACTS, Live(queued(names.FIELD_MANAGER, True), fence_of(JOB))), Update)
    assert held_by_other(queued("kueue", True), ("spec", "suspend"))
    assert not held_by_other(fenced(JOB), ("spec", "suspend"))


def test_a_job_that_its_producer_suspended_stays_so() -> None:
    manifest = batch_job(2)
    manifest["spec"]["suspend"] = True
    assignment = assigned(manifest, version=(3, 5))
    created = next_step(assignment, FACTS, Live(fence=fence_of(assignment)))
    assert isinstance(created, Create)
    assert created.obj["spec"]["suspend"] is True
    for now in (True, False):  # whoever resumes it has the last word
        live = Live(fenced(assignment, suspend=now), fence_of(assignment))
        assert isinstance(next_step(assignment, FACTS, live), Done)


def test_done_tells_what_the_object_says() -> None:
    live = with_status(
        object_of(DEPLOYMENT), readyReplicas=2, updatedReplicas=2, availableReplicas=2, observedGeneration=1
    )
    done = next_step(DEPLOYMENT, FACTS, Live(live))
    assert isinstance(done, Done)
    assert (done.health, done.ready, done.object_uid) == (WorkloadHealth.HEALTHY, 2, "u1")
    seen = observation(DEPLOYMENT, done, FACTS, 12.0)
    assert (seen.version, seen.incarnation, seen.observed_at) == (DEPLOYMENT.version, HERE, 12.0)
    assert seen.status == live["status"]


@pytest.mark.parametrize(
    ("assignment", "live", "facts"),
    [
        (DEPLOYMENT, object_of(DEPLOYMENT, stamp(3, 4)), FROZEN),
        (GONE_DEPLOYMENT, object_of(DEPLOYMENT), FROZEN),
        (DEPLOYMENT, object_of(DEPLOYMENT, **GOING), FACTS),
    ],
)
def test_while_something_waits_the_pods_that_are_there_count(assignment: Assignment, live: Json, facts: Facts) -> None:
    ready = {"readyReplicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "observedGeneration": 1}
    done = next_step(assignment, facts, Live(with_status(live, **ready)))
    assert isinstance(done, Done)
    assert (done.phase, done.ready) == (PENDING, 2)


def test_a_foreign_objects_pods_are_not_ours() -> None:
    suspended = changed(DEPLOYMENT, suspended=True)
    done = next_step(suspended, FACTS, Live(with_status(FOREIGN, readyReplicas=2)))
    assert isinstance(done, Done)
    assert (done.phase, done.ready) == (PENDING, 0)


def test_a_status_that_is_too_large_loses_its_largest_members() -> None:
    status = {"phase": "Running", "nodes": {str(n): {"x": "y" * 100} for n in range(1000)}, "progress": "1/1000"}
    assert brief(status) == {"phase": "Running", "progress": "1/1000"}
    assert brief({"phase": "Running"}) == {"phase": "Running"}
    assert brief({"a": "x" * STATUS_BYTES, "b": "x" * STATUS_BYTES}) == {}


def test_a_release_takes_our_marks_and_no_others() -> None:
    obj = fenced(JOB)
    other = {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "o"}
    obj["metadata"]["ownerReferences"].append(other)
    patch = release_patch(obj)["metadata"]
    assert (patch["uid"], patch["resourceVersion"]) == ("u1", "7")
    assert patch["ownerReferences"] == [other]
    assert patch["labels"] == {names.WORKLOAD_LABEL: None, RELEASED_LABEL: "true"}
    assert patch["annotations"] == {names.WORKLOAD_ANNOTATION: None, names.VERSION_ANNOTATION: None}
    assert release_patch(object_of(DEPLOYMENT))["metadata"]["ownerReferences"] is None


def pod(phase: str = "Failed", reason: str = "", exit_code: int | None = None, disrupted: bool = False) -> Json:
    status: Json = {"phase": phase}
    if reason:
        status["reason"] = reason
    if exit_code is not None:
        status["containerStatuses"] = [{"state": {"terminated": {"exitCode": exit_code}}}]
    if disrupted:
        status["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]
    return {"status": status}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], FailureClass.START),
        ([{}], FailureClass.START),
        ([pod(exit_code=1)], FailureClass.USER),
        ([pod(exit_code=0)], FailureClass.START),
        ([pod(reason="Evicted")], FailureClass.INFRASTRUCTURE),
        ([pod(reason="NodeLost")], FailureClass.INFRASTRUCTURE),
        ([pod(disrupted=True, exit_code=137)], FailureClass.INFRASTRUCTURE),
        # The loss of one makes the others fail.
        ([pod(exit_code=1), pod(exit_code=1), pod(reason="Preempted")], FailureClass.INFRASTRUCTURE),
        ([pod("Running")], FailureClass.START),
    ],
)
def test_blame(found: list[Json], expected: FailureClass) -> None:
    assert pods.blame(found, FailureClass.START) is expected


def test_pods_that_have_not_ended() -> None:
    going = {"metadata": GOING, "status": {"phase": "Running"}}
    assert pods.live([pod("Succeeded"), pod("Failed"), pod("Running"), pod("Pending"), going, {}]) == 4
