"""The guarded writes: every row is an interleaving in which a late writer must not win."""

from __future__ import annotations

from typing import Any

import pytest

from gpufleet.kube.client import KubeClient
from gpufleet.kube.errors import ApiStatusError
from gpufleet.kube.fencing import Stamp, fence_object, owned_by, stamp_of, stamped
from gpufleet.kube.resources import CONFIG_MAPS
from gpufleet.kube.writes import Outcome, create_if_absent, delete_exact, update_exact
from tests.support.apiserver import ApiServer, config_map, deployment
from tests.support.waiting import eventually

ME = "conformance"
STAMP = Stamp("log", 1, 1)


def documents(namespace: str) -> list[dict[str, Any]]:
    return [config_map(namespace, "obj", {"k": "v"}), deployment(namespace, "obj")]


@pytest.fixture(params=[0, 1], ids=["ConfigMap", "Deployment"])
def document(request: pytest.FixtureRequest, namespace: str) -> dict[str, Any]:
    chosen: dict[str, Any] = documents(namespace)[request.param]
    return chosen


async def created(kube: KubeClient, obj: dict[str, Any]) -> dict[str, Any]:
    """The object as it is once its controller has come to rest on it."""
    assert (await create_if_absent(kube, obj, field_manager=ME)).outcome is Outcome.DONE
    return await settled(kube, obj)


async def settled(kube: KubeClient, obj: dict[str, Any]) -> dict[str, Any]:
    resource = await kube.resource_for(obj["apiVersion"], obj["kind"])
    name, namespace = obj["metadata"]["name"], obj["metadata"]["namespace"]

    async def at_rest() -> bool:
        live = await kube.get(resource, name, namespace)
        status = live.get("status", {})
        observed = status.get("observedGeneration", 0) >= live["metadata"].get("generation", 0)
        return observed and (resource.kind != "Deployment" or len(status.get("conditions", ())) == 2)

    await eventually(at_rest, "the controller to observe the object")
    return await kube.get(resource, name, namespace)


async def replace(apiserver: ApiServer, obj: dict[str, Any]) -> None:
    """Delete it and create another one of the same name."""
    apiserver.admin.delete(obj).expect(200)
    await eventually(lambda: apiserver.admin.get(obj).status == 404, "the object to go")
    apiserver.admin.create(obj).expect(201)


def touch(apiserver: ApiServer, obj: dict[str, Any]) -> None:
    """Change it as somebody else."""
    apiserver.admin.merge(obj, {"metadata": {"labels": {"touched": "yes"}}}).expect(200)


async def test_create_where_there_is_none(kube: KubeClient, document: dict[str, Any]) -> None:
    written = await create_if_absent(kube, stamped(document, STAMP), field_manager=ME)
    assert written.outcome is Outcome.DONE
    assert written.obj is not None
    assert stamp_of(written.obj) == STAMP


async def test_create_never_changes_what_is_there(
    kube: KubeClient, apiserver: ApiServer, document: dict[str, Any]
) -> None:
    before = await created(kube, document)
    for manager in (ME, "other"):
        written = await create_if_absent(kube, stamped(document, Stamp("log", 9, 9)), field_manager=manager)
        assert (written.outcome, written.obj) == (Outcome.EXISTS, None)
    after = apiserver.admin.get(document).expect(200)
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


async def test_update_of_what_was_read(kube: KubeClient, document: dict[str, Any]) -> None:
    live = await created(kube, document)
    written = await update_exact(kube, stamped(document, STAMP), live, field_manager=ME)
    assert written.outcome is Outcome.DONE
    assert written.obj is not None
    assert (stamp_of(written.obj), written.obj["metadata"]["uid"]) == (STAMP, live["metadata"]["uid"])


async def test_update_loses_to_a_change(kube: KubeClient, apiserver: ApiServer, document: dict[str, Any]) -> None:
    live = await created(kube, document)
    touch(apiserver, document)
    written = await update_exact(kube, stamped(document, STAMP), live, field_manager=ME)
    assert written.outcome is Outcome.LOST
    assert stamp_of(apiserver.admin.get(document).expect(200)) is None


async def test_update_does_not_create_again(kube: KubeClient, apiserver: ApiServer, document: dict[str, Any]) -> None:
    live = await created(kube, document)
    apiserver.admin.delete(document).expect(200)
    await eventually(lambda: apiserver.admin.get(document).status == 404, "the object to go")
    assert (await update_exact(kube, document, live, field_manager=ME)).outcome is Outcome.LOST
    assert apiserver.admin.get(document).status == 404


async def test_update_does_not_touch_a_successor(
    kube: KubeClient, apiserver: ApiServer, document: dict[str, Any]
) -> None:
    live = await created(kube, document)
    await replace(apiserver, document)
    assert (await update_exact(kube, stamped(document, STAMP), live, field_manager=ME)).outcome is Outcome.LOST
    # As if by chance the successor had the version that was read.
    successor = await settled(kube, document)
    chimera = {"metadata": {**successor["metadata"], "uid": live["metadata"]["uid"]}}
    assert (await update_exact(kube, stamped(document, STAMP), chimera, field_manager=ME)).outcome is Outcome.LOST
    assert stamp_of(apiserver.admin.get(document).expect(200)) is None


async def test_update_without_force_names_the_other_manager(kube: KubeClient, namespace: str) -> None:
    await kube.apply(config_map(namespace, "a", {"k": "theirs"}), field_manager="other")
    live = await kube.get(CONFIG_MAPS, "a", namespace)
    with pytest.raises(ApiStatusError) as caught:
        await update_exact(kube, config_map(namespace, "a", {"k": "ours"}), live, field_manager=ME, force=False)
    assert caught.value.field_conflict
    assert [cause.field for cause in caught.value.causes] == [".data.k"]


async def test_delete_of_what_was_read(kube: KubeClient, apiserver: ApiServer, document: dict[str, Any]) -> None:
    live = await created(kube, document)
    assert (await delete_exact(kube, live)).outcome is Outcome.DONE
    await eventually(lambda: apiserver.admin.get(document).status == 404, "the object to go")
    assert (await delete_exact(kube, live)).outcome is Outcome.GONE


async def test_delete_loses_to_a_change(kube: KubeClient, apiserver: ApiServer, document: dict[str, Any]) -> None:
    live = await created(kube, document)
    touch(apiserver, document)
    assert (await delete_exact(kube, live)).outcome is Outcome.LOST
    assert apiserver.admin.get(document).status == 200


async def test_delete_spares_a_successor(kube: KubeClient, apiserver: ApiServer, document: dict[str, Any]) -> None:
    live = await created(kube, document)
    await replace(apiserver, document)
    assert (await delete_exact(kube, live)).outcome is Outcome.LOST
    assert apiserver.admin.get(document).status == 200


async def test_objects_go_with_their_fence(kube: KubeClient, apiserver: ApiServer, namespace: str) -> None:
    fence = await created(kube, fence_object("fence", namespace, STAMP))
    obj = owned_by(deployment(namespace, "obj"), fence)
    await created(kube, obj)
    assert (await delete_exact(kube, fence)).outcome is Outcome.DONE
    await eventually(lambda: apiserver.admin.get(obj).status == 404, "the object to follow its fence")


@pytest.mark.parametrize("fenced_again", [False, True])
async def test_what_comes_late_is_collected(
    kube: KubeClient, apiserver: ApiServer, namespace: str, fenced_again: bool
) -> None:
    """A dispatcher wakes up after the fence was taken away, perhaps even after the job came back."""
    fence = await created(kube, fence_object("fence", namespace, STAMP))
    await delete_exact(kube, fence)
    if fenced_again:
        await created(kube, fence_object("fence", namespace, Stamp("log", 2, 2)))
    obj = owned_by(config_map(namespace, "late"), fence)
    assert (await create_if_absent(kube, obj, field_manager=ME)).outcome is Outcome.DONE
    await eventually(lambda: apiserver.admin.get(obj).status == 404, "the late object to be collected")
