"""ResourceQuotas: the status says what the pods of the namespace ask for. Nothing is refused by them."""

from __future__ import annotations

import json
from collections.abc import Iterable

from gpufleet.model import quantity
from gpufleet.model.cluster import NamespaceQuota
from gpufleet.model.requests import add, bounded_by
from gpufleet.model.resources import parse_resources, render_resources
from sim.model.api import DONE, Event, Json, Kind, Ref, Result, View, ref_of
from sim.model.names import USED_BESIDES
from sim.model.objects import POD, annotations_of, finished, status_write
from sim.model.scheduler.needs import needs_of

RESOURCE_QUOTA = ("v1", "ResourceQuota")


class QuotaController:
    """Counts the pods of a namespace that have not ended, besides what the quota's annotation says is used."""

    name = "resourcequota-controller"
    watches: tuple[Kind, ...] = (RESOURCE_QUOTA, POD)

    def observe(self, view: View, event: Event) -> Iterable[Ref]:
        """The quota itself, or those of a pod's namespace."""
        if event.kind == RESOURCE_QUOTA:
            return () if event.obj is None else (ref_of(event.obj),)
        namespace = event.current["metadata"].get("namespace", "")
        return [ref_of(quota) for quota in view.list(*RESOURCE_QUOTA, namespace)]

    def reconcile(self, view: View, key: Ref, now: float) -> Result:  # noqa: ARG002
        """Brings `status.used` to what there is; what is neither pods nor their requests is not counted."""
        quota = view.get(*key)
        if quota is None:
            return DONE
        hard: Json = (quota.get("spec") or {}).get("hard") or {}
        pods = [needs_of(pod).shape.requests for pod in view.list(*POD, key.namespace) if not finished(pod)]
        total = add(_besides(quota), *(dict(requests) for requests in pods))
        used = {name: quantity.render(total.get(bounded_by(name), 0), bounded_by(name)) for name in hard}
        return Result(status_write(quota, {"hard": dict(hard), "used": used}))


def _besides(quota: Json) -> dict[str, int]:
    try:
        return dict(parse_resources(json.loads(annotations_of(quota).get(USED_BESIDES, "{}"))))
    except (ValueError, TypeError, AttributeError):  # somebody else wrote it
        return {}


def quota_object(quota: NamespaceQuota, name: str) -> Json:
    """A ResourceQuota with what a document says of it."""
    bounds = dict.fromkeys(quota.bounds, "0") | render_resources(quota.hard)
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {
            "name": name,
            "namespace": quota.namespace,
            "annotations": {USED_BESIDES: json.dumps(render_resources(quota.used), sort_keys=True)},
        },
        "spec": {"hard": {n if n == "pods" else f"requests.{n}": amount for n, amount in sorted(bounds.items())}},
    }
