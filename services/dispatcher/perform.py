"""Carrying out one step at a cluster."""

from __future__ import annotations

from gpufleet.kube.client import KubeClient
from gpufleet.kube.errors import ApiStatusError
from gpufleet.kube.resources import identity
from gpufleet.kube.writes import Outcome, Written, create_if_absent, delete_exact, update_exact
from gpufleet.model.names import FIELD_MANAGER
from services.dispatcher.core.steps import Create, CreateNamespace, Delete, Release, Update, Write, release_patch


async def perform(client: KubeClient, step: Write) -> Written:
    """Sends the request of a step. What is lost to another writer is an outcome; other refusals raise KubeError."""
    match step:
        case Create(obj):
            return await create_if_absent(client, obj, field_manager=FIELD_MANAGER)
        case Update(obj, live):
            return await update_exact(client, obj, live, field_manager=FIELD_MANAGER)
        case Delete(live, foreground):
            return await delete_exact(client, live, propagation_policy="Foreground" if foreground else "Background")
        case CreateNamespace(name):
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            return await create_if_absent(client, namespace, field_manager=FIELD_MANAGER)
        case Release():
            return await _release(client, step)


async def _release(client: KubeClient, step: Release) -> Written:
    api_version, kind, name, namespace = identity(step.live)
    resource = await client.resource_for(api_version, kind)
    try:
        released = await client.patch_merge(
            resource, name, release_patch(step.live), namespace, field_manager=FIELD_MANAGER
        )
    except ApiStatusError as error:
        if error.not_found:
            return Written(Outcome.GONE)
        if error.stale:
            return Written(Outcome.LOST)
        raise
    return Written(Outcome.DONE, released)
