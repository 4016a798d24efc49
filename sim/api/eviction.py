"""The `eviction` subresource of pods: a delete that PodDisruptionBudgets can refuse."""

from __future__ import annotations

from typing import Any

from sim.api import errors
from sim.api.resources import POD_DISRUPTION_BUDGETS, PODS
from sim.api.selectors import LabelSelector
from sim.api.store import Deleted, Store

Json = dict[str, Any]


def evict(store: Store, namespace: str, name: str, eviction: Json, *, now: float, dry_run: bool = False) -> Deleted:
    """Delete a pod unless a budget that selects it allows no disruption (429); finished pods always go."""
    pod = store.get(PODS, namespace, name)
    phase = pod.get("status", {}).get("phase")
    if phase not in {"Succeeded", "Failed", "Pending"}:
        _take_disruption(store, pod, now, dry_run)
    options = eviction.get("deleteOptions") or {}
    preconditions = options.get("preconditions") or {}
    return store.delete(
        PODS,
        namespace,
        name,
        now=now,
        uid=preconditions.get("uid"),
        resource_version=preconditions.get("resourceVersion"),
        grace_period=options.get("gracePeriodSeconds"),
        propagation=options.get("propagationPolicy"),
        dry_run=dry_run,
    )


def _take_disruption(store: Store, pod: Json, now: float, dry_run: bool) -> None:
    namespace = pod["metadata"]["namespace"]
    budgets = [
        budget
        for budget in store.list(POD_DISRUPTION_BUDGETS, namespace)
        if LabelSelector.from_document(budget["spec"].get("selector")).matches(pod["metadata"].get("labels"))
    ]
    for budget in budgets:
        name = budget["metadata"]["name"]
        status = budget.get("status", {})
        allowed = status.get("disruptionsAllowed", 0)
        if allowed <= 0:
            needs = status.get("desiredHealthy", 0)
            has = status.get("currentHealthy", 0)
            message = f"The disruption budget {name} needs {needs} healthy pods and has {has} currently"
            cause = errors.cause("DisruptionBudget", "", message)
            text = "Cannot evict pod as it would violate the pod's disruption budget."
            raise errors.too_many_requests(text, 10, [cause])
        if not dry_run:
            status = {**status, "disruptionsAllowed": allowed - 1}
            store.update_status(POD_DISRUPTION_BUDGETS, namespace, name, status, now=now)
