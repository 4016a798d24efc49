"""What is written can be read, by gpufleet and by every other reader of proto3 JSON, and says the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpufleet.model import quantity
from gpufleet.wire import records
from gpufleet.wire.records_base import parse_time, render_time
from tests.support import contract
from tests.support.examples import examples
from tests.support.record_values import VALUES, flag, moment, offset, text, value, word

relaxed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

any_value = st.one_of(*(st.tuples(st.just(topic), strategy) for topic, strategy in VALUES.items()))


@given(any_value)
@settings(parent=relaxed, max_examples=examples(400))
def test_what_is_written_is_read_again(case: tuple[str, Any]) -> None:
    topic, written = case
    codec = records.CODECS[topic]
    data = codec.dump(written)
    read = codec.parse(contract.Record(topic, codec.key(written), data, {"ce_type": codec.event_type}, 340))
    assert read == written
    assert codec.dump(read) == data


@given(any_value)
@settings(parent=relaxed, max_examples=examples(300))
def test_other_readers_take_what_is_written_and_give_it_back(case: tuple[str, Any]) -> None:
    """`json_format` refuses unknown fields and wrong types, so writers write nothing but the messages."""
    topic, written = case
    codec = records.CODECS[topic]
    message = contract.parse(codec.message, codec.dump(written))
    back = json_format.MessageToJson(message, indent=None).encode()
    assert codec.parse(contract.Record(topic, codec.key(written), back, {}, 340)) == written


# --- Messages ---------------------------------------------------------------------------------------------------

quantities = st.sampled_from(["1", "500m", "96", "1Ti", "16Gi", "1500"])
json_time = st.floats(1e9, 4e9).map(render_time)


def field_values(descriptor: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    """Values of a field in JSON."""
    if (entry := contract.map_value(descriptor)) is not None:
        if contract.option(descriptor, "quantities"):
            return st.dictionaries(st.sampled_from(["memory", "pods", "nvidia.com/gpu"]), quantities, max_size=2)
        return st.dictionaries(word, field_values(entry, depth + 1), max_size=2)
    single: st.SearchStrategy[Any]
    if descriptor.message_type is not None:
        name = descriptor.message_type.full_name
        if name == "google.protobuf.Timestamp":
            single = json_time
        elif name == "google.protobuf.Struct":
            single = st.dictionaries(text, value, min_size=1, max_size=2)
        else:
            single = message_values(descriptor.message_type, depth + 1)
    elif descriptor.type == FieldDescriptor.TYPE_STRING:
        values = list(contract.option(descriptor, "values"))
        single = st.sampled_from(values) if values else word
        if descriptor.name == "schema_version":
            single = st.just("v1")
    elif descriptor.type == FieldDescriptor.TYPE_BOOL:
        single = flag
    elif descriptor.type == FieldDescriptor.TYPE_DOUBLE:
        single = offset
    elif descriptor.name == "weight":
        single = st.integers(1, 100)
    else:
        single = st.integers(0, 1000)
    return st.lists(single, max_size=2) if descriptor.is_repeated else single


@st.composite
def message_values(draw: st.DrawFn, descriptor: Descriptor, depth: int = 0) -> dict[str, Any]:
    """JSON of a message, by its descriptor alone."""
    chosen = {oneof.name: draw(st.sampled_from(list(oneof.fields))) for oneof in descriptor.oneofs}
    result = {}
    for item in descriptor.fields:
        oneof = item.containing_oneof
        if oneof is not None and not oneof.name.startswith("_") and chosen[oneof.name] is not item:
            continue
        # Absent, these mean something that writers write out.
        always = contract.option(item, "required") or item.name in ("provision_seconds", "health")
        if always or oneof is not None or (depth < 4 and draw(flag)):
            result[item.json_name] = draw(field_values(item, depth))
    if descriptor.name == "NodeClass":
        result["nodes"] = sum(block.get("nodes", 0) for block in result.get("free", ())) + 1
    if descriptor.name == "Names" and "items" in result:
        result["items"] = sorted(set(result["items"]))
    if descriptor.name == "Claim":
        result = {"logId": "x"} if draw(flag) else {**result, "service": "s", "instance": "i", "logId": ""}
    return result


def pruned(node: Any) -> Any:
    """JSON without what a reader assumes anyway; whole numbers as integers, amounts in base units."""
    if isinstance(node, dict):
        slim = {}
        for name, item in node.items():
            if name in ("allocatable", "free", "hard", "used") and isinstance(item, dict):
                item = {resource: quantity.parse(text, resource, round_up=False) for resource, text in item.items()}
            slim[name] = pruned(item)
        return {name: item for name, item in slim.items() if item not in ({}, [], "", 0, None) and name != VERSION}
    if isinstance(node, list):
        return [pruned(item) for item in node]
    if isinstance(node, float) and node.is_integer():
        return int(node)
    return node


VERSION = "schemaVersion"  # read, never written


@given(st.data())
@settings(parent=relaxed, max_examples=examples(300))
def test_messages_of_other_writers_are_read_and_written_again(data: st.DataObject) -> None:
    topic = data.draw(st.sampled_from(sorted(VALUES)))
    codec = records.CODECS[topic]
    descriptor = contract.descriptor_of(codec.message)
    sent = json_format.ParseDict(data.draw(message_values(descriptor)), contract.message_class(codec.message)())
    spelled = json_format.MessageToJson(sent, indent=None, preserving_proto_field_name=data.draw(flag))
    read = codec.parse(contract.Record(topic, identity(topic, json_format.MessageToDict(sent)), spelled.encode()))
    again = contract.parse(codec.message, codec.dump(read))
    assert pruned(json_format.MessageToDict(again)) == pruned(json_format.MessageToDict(sent))


def identity(topic: str, sent: dict[str, Any]) -> str:
    """The key that belongs to a value, by the words of the contract."""
    if topic == "gpufleet.clusters":
        return str(sent["name"])
    if topic == "gpufleet.epochs":
        shard = sent.get("shard")
        return "log" if "logId" in sent else f"{sent['service']}" + ("" if shard is None else f"/{shard}")
    if topic == "gpufleet.inventory":
        tail = ""
        if "nodeClass" in sent:
            tail = f"/class/{sent['nodeClass']['name']}"
        if "pods" in sent:
            tail = f"/pods/{sent['pods']['workload']}"
        return f"{sent['cluster']}{tail}"
    prefix = f"{sent['cluster']}/" if topic in ("gpufleet.assignments", "gpufleet.observations") else ""
    return f"{prefix}{sent['workload']}"


# --- Smaller parts ----------------------------------------------------------------------------------------------


@given(moment)
@relaxed
def test_times_come_back_exactly(seconds: float) -> None:
    assert parse_time(render_time(seconds)) == seconds


# The years 1 to 9999, less the last second, whose fractions a float rounds up.
@given(st.integers(-62_135_596_800, 253_402_300_798), st.integers(0, 999_999))
@relaxed
def test_times_are_those_of_protobuf(seconds: int, fraction: int) -> None:
    number = seconds + fraction / 1_000_000
    stamp = Timestamp()
    stamp.FromJsonString(render_time(number))
    assert abs(stamp.ToNanoseconds() / 1e9 - number) <= max(1e-9, abs(number) * 2**-52)


garbage = st.one_of(st.binary(max_size=60), text.map(str.encode), value.map(lambda item: json.dumps(item).encode()))


@given(garbage, st.sampled_from(sorted(records.CODECS)))
@settings(parent=relaxed, max_examples=examples(400))
def test_anything_else_is_a_record_error(data: bytes, topic: str) -> None:
    with pytest.raises(records.RecordError) as error:
        records.CODECS[topic].parse(contract.Record(topic, "k", data))
    assert error.value.message
