"""Registrations: the messages of `cluster.proto`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from gpufleet.model.cluster import ClusterSpec, Scoring
from gpufleet.model.log import ClusterAccess, ClusterRegistration
from gpufleet.model.selectors import Taint
from gpufleet.wire.records_base import (
    Pairs,
    SchemaVersion,
    Struct,
    Text,
    Time,
    Wire,
    compact,
    time_or_none,
)


class TaintMessage(Wire):
    """`Taint`: of a node class, a virtual node or a cluster."""

    key: Text
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
    time_added: Time | None = None

    def to_model(self) -> Taint:
        """Returns the domain's taint."""
        return Taint(self.key, self.effect, self.value, self.time_added)


def taint_object(taint: Taint) -> dict[str, Any]:
    """Returns the message as a plain object."""
    return compact(
        {"key": taint.key, "value": taint.value, "effect": taint.effect, "timeAdded": time_or_none(taint.since)}
    )


class ClusterAccessMessage(Wire):
    """`ClusterAccess`: how the API is reached."""

    kubeconfig: str = ""
    context: str = ""
    secret_ref: Struct | None = None
    inline: Struct | None = None
    in_cluster: bool = False
    simulated: Struct | None = None

    def to_model(self) -> ClusterAccess:
        """Returns the domain's access."""
        return ClusterAccess(
            self.kubeconfig, self.context, self.secret_ref, self.simulated, self.inline, self.in_cluster
        )


class ScoredResourceMessage(Wire):
    """`ScoredResource`: a resource with its weight."""

    name: Text
    weight: Annotated[int, Field(ge=1, le=100)]


class ScoringStrategyMessage(Wire):
    """`ScoringStrategy`: by what a cluster's own scheduler chooses among nodes that fit."""

    type: Literal["LeastAllocated", "MostAllocated"]
    resources: tuple[ScoredResourceMessage, ...] = ()

    def to_model(self) -> Scoring:
        """Returns the domain's scoring."""
        return Scoring(self.type == "MostAllocated", tuple((item.name, item.weight) for item in self.resources))


def scoring_object(scoring: Scoring | None) -> dict[str, Any] | None:
    """Returns the message as a plain object, or None."""
    if scoring is None:
        return None
    weights = [{"name": name, "weight": weight} for name, weight in scoring.weights]
    return compact({"type": "MostAllocated" if scoring.packs else "LeastAllocated", "resources": weights})


class ClusterSpecMessage(Wire):
    """`ClusterSpec`: a registration."""

    schema_version: SchemaVersion = ""
    name: Text
    labels: Pairs = ()
    provider: str = ""
    region: str = ""
    zones: tuple[str, ...] = ()
    taints: tuple[TaintMessage, ...] = ()
    access: ClusterAccessMessage | None = None
    scoring_strategy: ScoringStrategyMessage | None = None

    def to_model(self, version: int) -> ClusterRegistration:
        """Returns the registration; ``version`` is the record's offset."""
        return ClusterRegistration(
            spec=ClusterSpec(
                name=self.name,
                labels=self.labels,
                provider=self.provider,
                region=self.region,
                zones=self.zones,
                taints=tuple(taint.to_model() for taint in self.taints),
                scoring_strategy=None if self.scoring_strategy is None else self.scoring_strategy.to_model(),
            ),
            access=ClusterAccess() if self.access is None else self.access.to_model(),
            version=version,
        )


def cluster_object(registration: ClusterRegistration) -> dict[str, Any]:
    """Returns the message as a plain object."""
    spec, access = registration.spec, registration.access
    how = compact({"kubeconfig": access.kubeconfig, "context": access.context, "inCluster": access.in_cluster})
    for name, item in (
        ("secretRef", access.secret_ref),
        ("inline", access.inline),
        ("simulated", access.simulated),
    ):
        if item is not None:
            how[name] = item
    return compact(
        {
            "name": spec.name,
            "labels": dict(spec.labels),
            "provider": spec.provider,
            "region": spec.region,
            "zones": spec.zones,
            "taints": [taint_object(taint) for taint in spec.taints],
            "access": how,
            "scoringStrategy": scoring_object(spec.scoring_strategy),
        }
    )
