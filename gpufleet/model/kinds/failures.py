"""Who is to blame when a workload failed, from what its status says (specification 7.3)."""

from __future__ import annotations

import re

from gpufleet.model.placement import FailureClass

# Reasons and words that Kubernetes, its job operators and the kubelet use. The node or the cluster took the pod away.
_INFRASTRUCTURE = re.compile(
    r"evict|preempt|node ?lost|node ?shutdown|node (is|was) (not ready|unreachable|deleted|lost)|low on resource"
    r"|disruptiontarget|taint ?manager|pod (was )?(deleted|not found|terminated)|imminent node",
    re.IGNORECASE,
)
# Reasons that the kubelet, the node lifecycle controller and the scheduler give to pods that they end.
TAKEN_AWAY = frozenset(
    {
        "Evicted",
        "NodeAffinity",
        "NodeLost",
        "NodeShutdown",
        "Preempted",
        "Preempting",
        "Shutdown",
        "Terminated",
        "UnexpectedAdmissionError",
    }
)
# There was no room to start in.
_START = re.compile(
    r"outof(cpu|memory|pods|nvidia|[a-z.-]+/)|unexpectedadmissionerror|insufficient|unschedulable|exceeded quota"
    r"|nodes are available|quota exceeded|failed ?scheduling|not enough resources|predicate \w+ failed",
    re.IGNORECASE,
)


def classify(*texts: str, started: bool = True) -> FailureClass:
    """Returns the class of a failure by its reasons and messages.

    ``started`` tells whether a pod ever ran: what ended before that did not fail by its own fault.
    """
    text = " ".join(filter(None, texts))
    if _INFRASTRUCTURE.search(text):
        return FailureClass.INFRASTRUCTURE
    if _START.search(text) or not started:
        return FailureClass.START
    return FailureClass.USER
