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
