"""Verdicts and reason codes: one vocabulary for the CLI, topics, logs and metrics."""

from __future__ import annotations

from enum import StrEnum

from gpufleet.model.values import value


class Verdict(StrEnum):
    """What became of a workload."""

    SCHEDULED = "Scheduled"
    PARTIALLY_SCHEDULED = "PartiallyScheduled"
    UNSCHEDULABLE = "Unschedulable"  # tried, nothing placed, tried again
    QUEUED = "Queued"  # waits for its turn or its quota
    SUSPENDED = "Suspended"
    FINISHED = "Finished"
    FAILED = "Failed"
    GIVEN_UP = "GivenUp"
    DELETING = "Deleting"
    ORPHANED = "Orphaned"


class Code(StrEnum):
    """Why a cluster, or the fleet, did not take (all of) a workload. `docs/reasons.md` has cause and remedy."""

    NO_MATCHING_POLICY = "NoMatchingPolicy"
    POLICY_PENDING = "PolicyPending"
    TRAVELS_ALONG = "TravelsAlong"
    OTHER_SCHEDULER = "OtherScheduler"
    NO_CLUSTERS = "NoClusters"
    CLUSTER_UNKNOWN = "ClusterUnknown"
    CLUSTER_UNREACHABLE = "ClusterUnreachable"
    CLUSTER_TAINTED = "ClusterTainted"
    CLUSTER_AVOIDED = "ClusterAvoided"
    INVENTORY_STALE = "InventoryStale"
    INVENTORY_MISSING = "InventoryMissing"
    API_NOT_SERVED = "ApiNotServed"
    NAMESPACE_MISSING = "NamespaceMissing"
    NAMESPACE_QUOTA = "NamespaceQuota"
    NO_MATCHING_NODES = "NoMatchingNodes"
    INSUFFICIENT_RESOURCES = "InsufficientResources"
    NO_STOCK = "NoStock"
    STOCK_NOT_TRUSTED = "StockNotTrusted"
    NEVER_FITS = "NeverFits"
    GANG_DOES_NOT_FIT = "GangDoesNotFit"
    NO_UNIT_HAS_ROOM = "NoUnitHasRoom"
    UNIT_AT_MAX = "UnitAtMax"
    WAITING_IN_UNIT = "WaitingInUnit"
    UNIT_LABEL_MISSING = "UnitLabelMissing"
    HIGHER_GROUP_TOOK_ALL = "HigherGroupTookAll"
    WAITING_FOR_REMOVAL = "WaitingForRemoval"
    DISPATCH_REFUSED = "DispatchRefused"
    CONFLICT = "Conflict"
    SUSPENDED = "Suspended"
    INVALID_RECORD = "InvalidRecord"
    FROZEN = "Frozen"
    POLICY_IGNORED = "PolicyIgnored"
    BACKING_OFF = "BackingOff"
    ATTEMPTS_EXHAUSTED = "AttemptsExhausted"
    SUBMISSION_MISSING = "SubmissionMissing"
    JOB_FAILED = "JobFailed"
    OVERRIDE_FAILED = "OverrideFailed"
    OVERRIDES_MISSING = "OverridesMissing"
    QUOTA_EXCEEDED = "QuotaExceeded"
    NO_QUOTA = "NoQuota"
    SPREAD_UNMET = "SpreadUnmet"
    SPREAD_CHOSE_OTHERS = "SpreadChoseOthers"
    PREEMPTED = "Preempted"
    PREEMPTS = "Preempts"
    QUEUE_BLOCKED = "QueueBlocked"
    CLUSTER_KEPT = "ClusterKept"
    QUEUE_TIMEOUT = "QueueTimeout"
    JOB_DIVIDED = "JobDivided"
    CLUSTER_REPLACED = "ClusterReplaced"


@value(frozen=True, slots=True)
class Reason:
    """Why, with numbers. ``cluster`` is empty where the reason is the workload's as a whole."""

    code: Code
    message: str
    cluster: str = ""
    needs: str = ""  # the smallest change that would make it fit, if known
