"""What the answers of a cluster's API mean for an assignment, whichever way they came.

Steps are carried out in two places: `services.dispatcher.attempt` and `perform` send them over HTTP, where views may be
behind, others write in between and a lease may end; `sim.scenario.dispatch` gives them to a simulated cluster in
virtual time, where a look is always fresh. What they have in common is `next_step`, the guards in
`gpufleet.kube.fencing`, and this.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from gpufleet.kube.errors import ApiStatusError
from gpufleet.model.placement import (
    Assignment,
    AssignmentState,
    FailureClass,
    Observation,
    ObservedPhase,
    WorkloadHealth,
)
from gpufleet.model.reasons import Code
from services.dispatcher.core import pods as pods_of
from services.dispatcher.core.steps import Done, Json

_NOT_SERVED_AGAIN = 5.0


def permanent(error: ApiStatusError) -> bool:
    """Whether sending the same again cannot help, so that the assignment is refused."""
    if error.unauthorized or error.throttled or error.unavailable or error.namespace_terminating:
        return False
    return error.invalid or error.forbidden or error.status in (405, 406, 413, 415, 501, 505)


def explain(error: ApiStatusError) -> str:
    """Returns the server's message with what it says of single fields, where the message leaves that out."""
    text = error.message or str(error)
    missing = [f"{c.field}: {c.message}" for c in error.causes if c.field and c.field not in text]
    return "; ".join([text, *missing])[:1000]


def refused(assignment: Assignment, error: ApiStatusError) -> Done:
    """Returns what becomes of an assignment when the API says no, for good or for now."""
    if not permanent(error):
        return Done(ObservedPhase.PENDING, code=Code.BACKING_OFF, message=str(error))
    # What is to be removed is still there, so the removal is not over: somebody has to allow it.
    removing = assignment.state is AssignmentState.REMOVING
    phase = ObservedPhase.PENDING if removing else ObservedPhase.REFUSED
    return Done(phase, code=Code.DISPATCH_REFUSED, message=explain(error))


def not_served(error: Exception) -> Done:
    """Returns what becomes of an assignment of a kind that the cluster lacks; ``error`` names both."""
    message = f"{error}; install it there, or choose other clusters"
    return Done(ObservedPhase.PENDING, code=Code.API_NOT_SERVED, message=message, retry_after=_NOT_SERVED_AGAIN)


def counts_pods(assignment: Assignment, obj: Json | None, fence: Json | None) -> bool:
    """Whether a removal is over but for pods that may still run."""
    return assignment.job and assignment.state is AssignmentState.REMOVING and obj is None and fence is None


def asks_pods(assignment: Assignment, done: Done, last: Observation | None) -> bool:
    """Whether to ask the pods of a job that has just failed whose fault it was, as long as they are there."""
    return _open(assignment, done) and not _said(done, last)


def blamed(assignment: Assignment, done: Done, last: Observation | None, pods: Iterable[Json] | None = None) -> Done:
    """Returns the word about a job with whose fault its failure was: as was said before, else as its pods say."""
    if not _open(assignment, done):
        return done
    if last is not None and _said(done, last):
        return replace(done, failure=last.failure)
    return done if pods is None else replace(done, failure=pods_of.blame(pods, done.failure))


def _open(assignment: Assignment, done: Done) -> bool:
    """Whether a job has failed and its status does not say already that the cluster was to blame."""
    failed = assignment.job and done.health is WorkloadHealth.FAILED
    return failed and done.failure is not FailureClass.INFRASTRUCTURE


def _said(done: Done, last: Observation | None) -> bool:
    return last is not None and last.health is WorkloadHealth.FAILED and last.object_uid == done.object_uid
