"""What the design relies on, shown on the real parts: Apache Kafka and the Kubernetes API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError

from tests.support.clusters import Cluster, crd_files
from tests.support.kafka import COMPACTS_SOON, ApacheKafka
from tests.support.kube import SECOND_SCHEDULER, gpu_node
from tests.support.kubeapi import Document, KubeApi
from tests.support.waiting import eventually, wait_for

DEAD_UID = "00000000-0000-0000-0000-000000000001"
_numbers = count(1)


# --- Apache Kafka ------------------------------------------------------------------------------------------------


@pytest.fixture
async def producer(kafka: ApacheKafka) -> AsyncIterator[AIOKafkaProducer]:
    started = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, enable_idempotence=True)
    await started.start()
    yield started
    await started.stop()


async def make_topic(kafka: ApacheKafka, **configs: str) -> TopicPartition:
    name = f"real-{next(_numbers)}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        reply = await admin.create_topics([NewTopic(name, 1, 1, topic_configs=configs)])
        assert [error[1] for error in reply.topic_errors] == [0]
    finally:
        await admin.close()
    return TopicPartition(name, 0)


async def read_all(kafka: ApacheKafka, partition: TopicPartition) -> list[Any]:
    """Everything up to the end offset: the position passes holes that compaction has left."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=None, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        records: list[Any] = []
        while await consumer.position(partition) < end:
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                records.extend(batch)
        return records
    finally:
        await consumer.stop()


async def test_acknowledged_records_survive_a_crash_once_and_in_order(
    kafka: ApacheKafka, producer: AIOKafkaProducer
) -> None:
    topic = await make_topic(kafka)
    acknowledged = [await producer.send_and_wait(topic.topic, b"%d" % n, key=b"k") for n in range(50)]
    assert [record.offset for record in acknowledged] == list(range(50))

    await asyncio.to_thread(kafka.kill)
    pending = [await producer.send(topic.topic, b"%d" % n, key=b"k") for n in range(50, 100)]
    await asyncio.to_thread(kafka.start)
    await asyncio.gather(*pending)

    assert [int(record.value) for record in await read_all(kafka, topic)] == list(range(100))


async def test_connecting_to_a_broker_that_is_away_fails_at_once(kafka: ApacheKafka) -> None:
    await asyncio.to_thread(kafka.kill)
    try:
        consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap)
        with pytest.raises(KafkaConnectionError):
            await consumer.start()
        await consumer.stop()
    finally:
        await asyncio.to_thread(kafka.start)


async def test_compaction_leaves_the_last_record_of_each_key(kafka: ApacheKafka, producer: AIOKafkaProducer) -> None:
    topic = await make_topic(kafka, **COMPACTS_SOON)
    for version in range(20):
        for key in (b"a", b"b"):
            await producer.send_and_wait(topic.topic, b"%d" % version, key=key)
    await producer.send_and_wait(topic.topic, None, key=b"b", headers=[("gpufleet-epoch", b"7")])

    async def compacted() -> bool:
        await producer.send_and_wait(topic.topic, b"x", key=b"roll")  # an idle segment never rolls
        records = await read_all(kafka, topic)
        return [record.value for record in records if record.key == b"a"] == [b"19"]

    await eventually(compacted, "only the last record of key a is left", timeout=90, every=0.5)

    async def tombstone_gone() -> bool:
        await producer.send_and_wait(topic.topic, b"x", key=b"roll")
        return b"b" not in {record.key for record in await read_all(kafka, topic)}

    await eventually(tombstone_gone, "the tombstone of key b is removed", timeout=120, every=0.5)


async def test_tombstones_carry_headers(kafka: ApacheKafka, producer: AIOKafkaProducer) -> None:
    topic = await make_topic(kafka)
    await producer.send_and_wait(topic.topic, None, key=b"gone", headers=[("gpufleet-version", b"3")])
    [record] = await read_all(kafka, topic)
    assert (record.key, record.value, record.headers) == (b"gone", None, (("gpufleet-version", b"3"),))


# --- Kubernetes: the checks of the last resort -------------------------------------------------------------------


def config_map(**metadata: Any) -> Document:
    metadata.setdefault("name", f"thing-{next(_numbers)}")
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": "default", **metadata},
        "data": {"a": "1"},
    }


def deployment(name: str, replicas: int = 1, gpus: int = 1, scheduler: str = "default-scheduler") -> Document:
    container = {"name": "main", "image": "none", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"schedulerName": scheduler, "containers": [container]},
            },
        },
    }


def job(name: str, suspend: bool, **metadata: Any) -> Document:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "default", **metadata},
        "spec": {
            "suspend": suspend,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}]}},
        },
    }


def with_identity(obj: Document, uid: str = "", version: str = "") -> Document:
    identity = {"uid": uid, "resourceVersion": version}
    return {**obj, "metadata": {**obj["metadata"], **{key: value for key, value in identity.items() if value}}}


def pods_of(api: KubeApi, selector: str) -> list[Document]:
    return api.list("v1", "Pod", "default", labelSelector=selector)


def test_apply_with_version_1_creates_but_never_changes(api: KubeApi) -> None:
    thing = config_map(resourceVersion="1")
    api.apply(thing, force=True).expect(201)
    second = api.apply(thing, force=True)
    assert (second.status, second.reason) == (409, "Conflict")
    assert second.causes == []


def test_apply_with_a_version_only_creates_what_is_gone(api: KubeApi) -> None:
    api.apply(config_map(resourceVersion="99999999"), force=True).expect(201)


@pytest.mark.parametrize("version", ["", "7"])
def test_apply_with_a_uid_never_creates(api: KubeApi, version: str) -> None:
    refused = api.apply(with_identity(config_map(), DEAD_UID, version), force=True)
    assert (refused.status, refused.reason) == (409, "Conflict")
    assert "uid mismatch" in refused.message


def test_apply_with_uid_and_version_is_compare_and_set(api: KubeApi) -> None:
    thing = config_map()
    meta = api.apply(thing).expect(201)["metadata"]
    first = with_identity({**thing, "data": {"a": "2"}}, meta["uid"], meta["resourceVersion"])
    api.apply(first, force=True).expect(200)
    stale = api.apply(first, force=True)
    assert (stale.status, stale.reason) == (409, "Conflict")


def test_apply_to_a_successor_of_the_same_name_is_refused(api: KubeApi) -> None:
    thing = config_map()
    version = api.apply(thing).expect(201)["metadata"]["resourceVersion"]
    for refused in (
        api.apply(with_identity(thing, DEAD_UID), force=True),
        api.apply(with_identity(thing, DEAD_UID, version), force=True),
    ):
        assert (refused.status, refused.reason) == (422, "Invalid")
        assert {cause["field"] for cause in refused.causes} == {"metadata.uid"}
    assert api.apply(with_identity(thing, DEAD_UID, "1"), force=True).status == 409


def test_conflicting_field_managers_are_named_with_their_fields(api: KubeApi) -> None:
    name = f"shared-{next(_numbers)}"
    api.apply(deployment(name, 0), "a").expect(201)
    refused = api.apply(deployment(name, 1), "b")
    assert (refused.status, refused.reason) == (409, "Conflict")
    assert [(cause["reason"], cause["field"]) for cause in refused.causes] == [
        ("FieldManagerConflict", ".spec.replicas")
    ]
    api.apply(deployment(name, 0), "b").expect(200)


def test_the_same_apply_again_changes_nothing(api: KubeApi) -> None:
    thing = config_map()
    first = api.apply(thing).expect(201)
    assert api.apply(thing).expect(200)["metadata"] == first["metadata"]


def test_preconditions_of_delete(api: KubeApi) -> None:
    thing = config_map()
    meta = api.create(thing).expect(201)["metadata"]
    right = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
    for wrong in ({"uid": DEAD_UID}, {**right, "resourceVersion": "1"}):
        refused = api.delete(thing, preconditions=wrong)
        assert (refused.status, refused.reason) == (409, "Conflict")
    api.delete(thing, preconditions=right).expect(200)
    assert api.delete(thing, preconditions=right).status == 404


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"spec": {"replica": 1}}, id="unknown field"),
        pytest.param({"spec": {"template": {"spec": {"overhead": {"cpu": "8Gx"}}}}}, id="bad quantity"),
    ],
)
def test_a_manifest_that_can_never_be_applied_is_answered_with_500_without_reason(
    api: KubeApi, broken: Document
) -> None:
    meta = {"name": f"broken-{next(_numbers)}", "namespace": "default"}
    refused = api.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, **broken})
    assert (refused.status, refused.reason) == (500, "")


# --- Kubernetes: the fence ---------------------------------------------------------------------------------------


def fence_owner(fence: Document) -> list[Document]:
    meta = fence["metadata"]
    return [{"apiVersion": "v1", "kind": "ConfigMap", "name": meta["name"], "uid": meta["uid"]}]


def test_a_late_create_under_a_dead_owner_is_collected(api: KubeApi) -> None:
    fence = api.create(config_map()).expect(201)
    api.delete(fence, preconditions={"uid": fence["metadata"]["uid"]}).expect(200)
    late = job(f"late-{next(_numbers)}", suspend=True, ownerReferences=fence_owner(fence))
    api.apply(late).expect(201)
    wait_for(lambda: api.get(late).status == 404, "the late job is collected", timeout=60)
    assert pods_of(api, f"job-name={late['metadata']['name']}") == []


def test_a_late_create_is_collected_although_a_new_fence_has_the_name(api: KubeApi) -> None:
    fence = api.create(config_map()).expect(201)
    api.delete(fence).expect(200)
    successor = api.create(config_map(name=fence["metadata"]["name"])).expect(201)
    late = config_map(ownerReferences=fence_owner(fence))
    kept = config_map(ownerReferences=fence_owner(successor))
    api.apply(kept).expect(201)
    api.apply(late).expect(201)
    wait_for(lambda: api.get(late).status == 404, "the late object is collected", timeout=60)
    assert api.get(kept).status == 200


def test_deleting_the_fence_deletes_what_it_owns(api: KubeApi) -> None:
    fence = api.create(config_map()).expect(201)
    owned = config_map(ownerReferences=fence_owner(fence))
    api.apply(owned).expect(201)
    api.delete(fence).expect(200)
    wait_for(lambda: api.get(owned).status == 404, "the owned object is collected", timeout=60)


def test_a_suspended_job_has_no_pods_until_it_is_resumed(api: KubeApi) -> None:
    name = f"suspended-{next(_numbers)}"
    api.apply(job(name, suspend=True)).expect(201)

    def condition() -> Document:
        status = api.get(job(name, suspend=True)).expect(200).get("status", {})
        return {c["type"]: c["status"] for c in status.get("conditions", [])}

    wait_for(lambda: condition().get("Suspended") == "True", "the job is suspended")
    assert pods_of(api, f"job-name={name}") == []
    api.apply(job(name, suspend=False), force=True).expect(200)
    wait_for(lambda: condition().get("Complete") == "True", "the job completes")
    api.delete(job(name, suspend=False), propagationPolicy="Background").expect(200)
    wait_for(lambda: not pods_of(api, f"job-name={name}"), "its pods are deleted with it")


def test_deleting_a_job_without_a_policy_leaves_its_pods(api: KubeApi) -> None:
    name = f"orphaning-{next(_numbers)}"
    api.apply(job(name, suspend=False)).expect(201)
    [pod] = wait_for(lambda: pods_of(api, f"job-name={name}"), "its pod")
    reply = api.delete(job(name, suspend=False))
    assert "preserved by default" in reply.headers["Warning"]
    wait_for(lambda: api.get(job(name, suspend=False)).status == 404, "the job is gone")
    wait_for(lambda: "ownerReferences" not in api.get(pod_ref(pod)).expect(200)["metadata"], "the pod is orphaned")
    api.delete(pod_ref(pod)).expect(200)


def pod_ref(pod: Document) -> Document:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": pod["metadata"]}


# --- Kubernetes: nodes, schedulers, watch --------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["default-scheduler", SECOND_SCHEDULER])
def test_gpu_pods_get_ready_under_either_scheduler(api: KubeApi, scheduler: str) -> None:
    wanted = deployment(f"ready-{next(_numbers)}", replicas=2, gpus=2, scheduler=scheduler)
    api.apply(wanted).expect(201)
    wait_for(lambda: api.get(wanted).body["status"].get("readyReplicas") == 2, "two pods ready")
    api.delete(wanted).expect(200)


def test_a_pod_that_fits_nowhere_says_so_and_is_bound_when_a_node_comes(api: KubeApi) -> None:
    wanted = deployment(f"large-{next(_numbers)}", gpus=16)
    api.apply(wanted).expect(201)
    selector = f"app={wanted['metadata']['name']}"

    def reasons() -> set[str]:
        conditions = [c for pod in pods_of(api, selector) for c in pod.get("status", {}).get("conditions", [])]
        return {c.get("reason", "") for c in conditions if c["type"] == "PodScheduled"}

    wait_for(lambda: reasons() == {"Unschedulable"}, "the pod is unschedulable")
    node = gpu_node(f"large-{next(_numbers)}", gpus=16)
    api.create(node).expect(201)
    wait_for(lambda: api.get(wanted).body["status"].get("readyReplicas") == 1, "the pod runs on the new node")
    api.delete(wanted).expect(200)
    wait_for(lambda: not pods_of(api, selector), "its pods are gone")
    api.delete(node).expect(200)


def test_a_list_and_then_a_watch_see_every_change(api: KubeApi) -> None:
    path = api.path("v1", "ConfigMap", "default")
    version = api.request("GET", path).expect(200)["metadata"]["resourceVersion"]
    thing = api.create(config_map()).expect(201)
    query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "1"}
    # A watch ends after a second, whatever a busy server has sent until then: each goes on behind the same version.
    wait_for(
        lambda: thing["metadata"]["name"] in str(api.request("GET", path, query=query).expect(200)),
        "a watch that shows the change",
    )


def test_a_watch_from_before_a_restart_is_expired(real_clusters: dict[str, Cluster]) -> None:
    cluster = real_clusters["ack-b"]
    plane, api = cluster.plane, cluster.api
    assert plane is not None
    path = api.path("v1", "ConfigMap", "default")
    for _ in range(3):
        api.create(config_map()).expect(201)
    plane.kill_api()
    plane.start_api()

    def refusal() -> Document | None:
        """What a watch is answered with, as soon as the server's cache has been filled again."""
        reply = api.request("GET", path, query={"watch": "true", "resourceVersion": "2", "timeoutSeconds": "1"})
        return reply.body["object"] if reply.status == 200 and reply.body.get("type") == "ERROR" else None

    status = wait_for(refusal, "the watch to be refused")
    assert status is not None
    assert (status["code"], status["reason"]) == (410, "Expired")


def test_custom_resources_under_a_dead_owner_are_collected(api: KubeApi) -> None:
    assert crd_files(), "no CustomResourceDefinitions in sim/crds"
    late = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {
            "name": f"late-{next(_numbers)}",
            "namespace": "default",
            "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "fence", "uid": DEAD_UID}],
        },
        "spec": {"pytorchReplicaSpecs": {}},
    }
    api.apply(late).expect(201)
    wait_for(lambda: api.get(late).status == 404, "the late PyTorchJob is collected")
