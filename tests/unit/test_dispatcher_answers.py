"""What the answers of a cluster's API mean for an assignment: the same over HTTP and in a simulation."""

from __future__ import annotations

from typing import Any

import pytest

from gpufleet.kube.errors import ApiStatusError, Cause, NotServed
from gpufleet.model.placement import (
    Assignment,
    AssignmentState,
    FailureClass,
    Observation,
    ObservedPhase,
    Version,
    WorkloadHealth,
)
from gpufleet.model.reasons import Code
from services.dispatcher.core import answers
from services.dispatcher.core.steps import Done

JOB = "test/PyTorchJob/train"
TERMINATING = (Cause("NamespaceTerminating", "namespace test is being terminated", "metadata.namespace"),)
INVALID = (Cause("FieldValueInvalid", "must be positive", "spec.replicas"),)
REPLACED = (Cause("FieldValueInvalid", "uid mismatch", "metadata.uid"),)


def assignment(state: AssignmentState = AssignmentState.ACTIVE, *, job: bool = True) -> Assignment:
    return Assignment(workload=JOB, cluster="c", version=Version(1, 1), state=state, job=job)


@pytest.mark.parametrize(
    "error, for_good",
    [
        (ApiStatusError(400, "BadRequest"), True),
        (ApiStatusError(401, "Unauthorized"), False),
        (ApiStatusError(403, "Forbidden"), True),
        (ApiStatusError(403, "Forbidden", causes=TERMINATING), False),
        (ApiStatusError(404, "NotFound"), False),
        (ApiStatusError(405, "MethodNotAllowed"), True),
        (ApiStatusError(413, "RequestEntityTooLarge"), True),
        (ApiStatusError(422, "Invalid", causes=INVALID), True),
        (ApiStatusError(422, "Invalid", causes=REPLACED), False),
        (ApiStatusError(429, "TooManyRequests"), False),
        (ApiStatusError(500, "InternalError"), False),
        (ApiStatusError(500, ""), True),
        (ApiStatusError(500, "", from_api=False), False),
        (ApiStatusError(503, "ServiceUnavailable"), False),
    ],
    ids=str,
)
def test_what_is_refused_for_good(error: ApiStatusError, for_good: bool) -> None:
    done = answers.refused(assignment(), error)
    expected = (ObservedPhase.REFUSED, Code.DISPATCH_REFUSED) if for_good else (ObservedPhase.PENDING, Code.BACKING_OFF)
    assert (done.phase, done.code) == expected


def test_a_removal_that_is_refused_goes_on() -> None:
    done = answers.refused(assignment(AssignmentState.REMOVING), ApiStatusError(403, "Forbidden", "not you"))
    assert (done.phase, done.code, done.message) == (ObservedPhase.PENDING, Code.DISPATCH_REFUSED, "not you")


def test_the_message_names_the_fields() -> None:
    assert answers.explain(ApiStatusError(422, "Invalid", "bad", INVALID)) == "bad; spec.replicas: must be positive"
    assert answers.explain(ApiStatusError(422, "Invalid", "spec.replicas: no", INVALID)) == "spec.replicas: no"


def test_a_kind_that_is_not_served_is_asked_for_again() -> None:
    done = answers.not_served(NotServed("c", "kubeflow.org/v1", "PyTorchJob"))
    assert (done.phase, done.code) == (ObservedPhase.PENDING, Code.API_NOT_SERVED)
    assert "c does not serve PyTorchJob in kubeflow.org/v1; install it there" in done.message
    assert done.retry_after


@pytest.mark.parametrize(
    "state, job, obj, fence, counts",
    [
        (AssignmentState.REMOVING, True, None, None, True),
        (AssignmentState.REMOVING, True, {}, None, False),
        (AssignmentState.REMOVING, True, None, {}, False),
        (AssignmentState.REMOVING, False, None, None, False),
        (AssignmentState.ACTIVE, True, None, None, False),
    ],
)
def test_pods_are_counted_when_nothing_else_is_left_of_a_job(
    state: AssignmentState, job: bool, obj: Any, fence: Any, counts: bool
) -> None:
    assert answers.counts_pods(assignment(state, job=job), obj, fence) is counts


EVICTED = {"status": {"phase": "Failed", "reason": "Evicted"}}


def failed(failure: FailureClass = FailureClass.USER) -> Done:
    return Done(ObservedPhase.APPLIED, WorkloadHealth.FAILED, failure, object_uid="u1")


def said(failure: FailureClass, uid: str = "u1") -> Observation:
    return Observation(
        JOB, "c", Version(1, 1), ObservedPhase.APPLIED, health=WorkloadHealth.FAILED, failure=failure, object_uid=uid
    )


@pytest.mark.parametrize(
    "done, last, pods, failure",
    [
        (failed(), None, [EVICTED], FailureClass.INFRASTRUCTURE),
        (failed(), None, [], FailureClass.USER),
        (failed(), said(FailureClass.INFRASTRUCTURE), None, FailureClass.INFRASTRUCTURE),
        (failed(), said(FailureClass.INFRASTRUCTURE, uid="u0"), [], FailureClass.USER),
        (failed(FailureClass.INFRASTRUCTURE), said(FailureClass.USER), None, FailureClass.INFRASTRUCTURE),
    ],
    ids=["a pod was evicted", "no pods", "as was said", "another object", "the status says it"],
)
def test_whose_fault_it_was(done: Done, last: Observation | None, pods: Any, failure: FailureClass) -> None:
    assert answers.asks_pods(assignment(), done, last) is (pods is not None)
    assert answers.blamed(assignment(), done, last, pods).failure is failure


def test_what_has_not_failed_or_is_no_job_is_left_as_it_is() -> None:
    running = Done(ObservedPhase.APPLIED, WorkloadHealth.PROGRESSING)
    assert not answers.asks_pods(assignment(), running, None)
    assert not answers.asks_pods(assignment(job=False), failed(), None)
    assert answers.blamed(assignment(job=False), failed(), said(FailureClass.INFRASTRUCTURE)) == failed()
