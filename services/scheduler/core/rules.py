"""Documents that say how it is decided, and which workloads have to be looked at when one comes, changes or goes."""

from __future__ import annotations

from gpufleet.model.overrides import OverridePolicy
from gpufleet.model.policy import PriorityClass, PropagationPolicy, ResourcePolicy
from gpufleet.model.quota import ElasticQuotaTree, QueueRule
from services.scheduler.core import ledger
from services.scheduler.core.divide import Mode
from services.scheduler.core.events import Policy
from services.scheduler.core.overrides import concerns
from services.scheduler.core.select import matches
from services.scheduler.core.state import State


def changed(state: State, policy: Policy, now: float) -> None:
    """Takes a new or edited document."""
    match policy:
        case PropagationPolicy():
            _propagation_changed(state, policy)
        case OverridePolicy():
            before = state.overrides.put(policy)
            if before != policy:
                _overrides_changed(state, *(p for p in (before, policy) if p is not None))
            if before is None:
                _override_awaited(state, policy)
        case ResourcePolicy():
            state.resource_policies.setdefault(policy.namespace, {})[policy.name] = policy
            _units_changed(state, policy.namespace, now)
        case PriorityClass():
            if state.priority_classes.get(policy.name) != policy:
                state.priority_classes[policy.name] = policy
                _ranks_changed(state)
        case ElasticQuotaTree():
            if state.quotas.put(policy):
                _quotas_changed(state)
        case QueueRule():
            if state.quotas.put_queue(policy):
                _queues_changed(state)


def removed(state: State, key: str, now: float) -> None:
    """Forgets the document of a key, ``kind/namespace/name``."""
    kind, _, rest = key.partition("/")
    namespace, _, name = rest.partition("/")
    if kind == "ResourcePolicy":
        if state.resource_policies.get(namespace, {}).pop(name, None) is not None:
            _units_changed(state, namespace, now)
    elif kind == "PriorityClass":
        if state.priority_classes.pop(name, None) is not None:
            _ranks_changed(state)
    elif kind in ("OverridePolicy", "ClusterOverridePolicy"):
        override = state.overrides.remove(namespace, name)
        if override is not None:
            _overrides_changed(state, override)
    elif kind == "ElasticQuotaTree":
        if state.quotas.remove(key):
            _quotas_changed(state)
    elif kind == "Queue":
        if state.quotas.remove_queue(key):
            _queues_changed(state)
    elif (policy := state.policies.remove(key)) is not None:
        if policy.priority_class:
            _ranks_changed(state)
        for workload in sorted(state.by_policy.get(key, ())):
            state.ask(workload, Mode.FILL)


def _propagation_changed(state: State, policy: PropagationPolicy) -> None:
    before = state.policies.get(policy.key)
    if before == policy:
        return
    state.policies.put(policy)
    if policy.priority_class != (before.priority_class if before is not None else ""):
        _ranks_changed(state)
    state.victims.all_changed(state.by_policy.get(policy.key, ()))
    for key in sorted(state.by_policy.get(policy.key, ())):
        state.ask(key, Mode.FILL)
    for key in sorted(state.unmatched):
        workload = state.entries[key].current
        if workload is not None and matches(policy, workload):
            state.ask(key, Mode.FILL)
    if policy.preempts_policies:
        for key, entry in sorted(state.entries.items()):
            if entry.current is not None and matches(policy, entry.current):
                state.ask(key, Mode.FILL)


def _overrides_changed(state: State, *policies: OverridePolicy) -> None:
    """Objects are written anew where an edition of the policy, the last one or this one, means them."""
    namespace = policies[0].namespace
    keys = state.in_namespace.get(namespace, ()) if namespace else state.entries
    for key in sorted(keys):
        workload = state.entries[key].current
        if workload is not None and any(concerns(policy, workload) for policy in policies):
            state.ask(key, Mode.FILL)


def _override_awaited(state: State, override: OverridePolicy) -> None:
    for policy in state.policies.all().values():
        if override.name in policy.dependent_overrides and policy.namespace == override.namespace:
            for key in sorted(state.by_policy.get(policy.key, ())):
                state.ask(key, Mode.FILL)


def _units_changed(state: State, namespace: str, now: float) -> None:
    """An edited ResourcePolicy concerns later pods only: what waits is tried anew, what is placed stays."""
    for key in sorted(state.in_namespace.get(namespace, ())):
        entry = state.entries[key]
        ledger.update(state, entry, now)
        if key in state.queue:
            state.ask(key, Mode.FILL)


def _quotas_changed(state: State) -> None:
    """Charges everything anew, and tries whatever waits: it may count in another quota now."""
    for key, entry in state.entries.items():
        state.quotas.update(key, entry.current, entry.placement)
    state.victims.all_changed(state.entries)
    for head in state.queue.heads():
        state.ask(head, Mode.FILL)


def _queues_changed(state: State) -> None:
    """A queue may block no more, or be first now."""
    for head in state.queue.heads():
        state.ask(head, Mode.FILL)


def _ranks_changed(state: State) -> None:
    state.ranked = True
    state.victims.all_changed(state.entries)
    # Their records say which priority they wait with; so many are not written all at once.
    state.moved.extend(state.queue.ranked_anew(lambda key: state.order(state.entry(key))))
    for head in state.queue.heads():
        state.ask(head, Mode.FILL)
