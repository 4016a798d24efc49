"""The guarded writes: create, update and delete that lose against whatever they have not seen.

What they send is built in :mod:`gpufleet.kube.fencing`. Losing is an outcome, not an error; other refusals raise as
from :class:`~gpufleet.kube.client.KubeClient`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpufleet.kube.client import Json, KubeClient, Propagation
from gpufleet.kube.errors import ApiStatusError
from gpufleet.kube.fencing import for_create, for_update, ids_of
from gpufleet.kube.resources import identity


class Outcome(enum.Enum):
    """What became of a guarded write."""

    DONE = "done"
    EXISTS = "exists"  # create: there is one already; read it and compare stamps
    LOST = "lost"  # update, delete: it changed, or is another one, or (update) is gone; read again
    GONE = "gone"  # delete: there is none


@dataclass(frozen=True, slots=True)
class Written:
    """``obj`` is the server's answer where the outcome is DONE; of a delete it may be a Status."""

    outcome: Outcome
    obj: Json | None = None


async def create_if_absent(client: KubeClient, obj: Mapping[str, Any], *, field_manager: str) -> Written:
    """Create ``obj`` unless one exists. After Unreachable ask again: EXISTS with one's own stamp is a success."""
    try:
        return Written(Outcome.DONE, await client.apply(for_create(obj), field_manager=field_manager, force=True))
    except ApiStatusError as error:
        if error.conflict:
            return Written(Outcome.EXISTS)
        raise


async def update_exact(
    client: KubeClient,
    obj: Mapping[str, Any],
    live: Mapping[str, Any],
    *,
    field_manager: str,
    force: bool = True,
) -> Written:
    """Apply ``obj`` if the object is still ``live``. Without ``force``, ApiStatusError (``field_conflict``) tells
    of fields that another manager owns."""
    try:
        written = await client.apply(for_update(obj, live), field_manager=field_manager, force=force)
    except ApiStatusError as error:
        if error.stale:
            return Written(Outcome.LOST)
        raise
    return Written(Outcome.DONE, written)


async def delete_exact(
    client: KubeClient, live: Mapping[str, Any], *, propagation_policy: Propagation = "Background"
) -> Written:
    """Delete the object if it is still ``live``."""
    api_version, kind, name, namespace = identity(live)
    uid, resource_version = ids_of(live)
    resource = await client.resource_for(api_version, kind)
    try:
        answer = await client.delete(
            resource,
            name,
            namespace,
            uid=uid,
            resource_version=resource_version,
            propagation_policy=propagation_policy,
        )
    except ApiStatusError as error:
        if error.not_found:
            return Written(Outcome.GONE)
        if error.stale:
            return Written(Outcome.LOST)
        raise
    return Written(Outcome.DONE, answer)
