"""The messages of `proto/` as descriptors, and the pydantic models as the same kind of description."""

from __future__ import annotations

import json
import tempfile
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import grpc_tools
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, struct_pb2, timestamp_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.message import Message
from grpc_tools import protoc
from pydantic.fields import FieldInfo

from gpufleet.wire.records_base import Wire, WireType

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "proto"
EXAMPLES = sorted((PROTO / "examples").glob("*.json"))
WELL_KNOWN = (struct_pb2, timestamp_pb2, descriptor_pb2)  # their descriptors have to be in the pool first


@dataclass(frozen=True)
class FieldShape:
    """What both sides must agree on. ``type`` is a proto type, ``repeated T`` or ``map<string, T>``."""

    name: str
    json_name: str
    type: str
    values: frozenset[str] = frozenset()
    required: bool = False
    quantities: bool = False
    presence: bool = False
    oneof: str = field(default="", compare=False)


@cache
def compiled() -> descriptor_pb2.FileDescriptorSet:
    """Returns the messages, compiled once per process."""
    sources = sorted(str(path.relative_to(PROTO)) for path in (PROTO / "gpufleet").rglob("*.proto"))
    with tempfile.NamedTemporaryFile(suffix=".binpb") as out:
        include = Path(grpc_tools.__file__).parent / "_proto"
        arguments = ["protoc", f"-I{PROTO}", f"-I{include}", f"--descriptor_set_out={out.name}", *sources]
        assert protoc.main(arguments) == 0, "protoc refuses the messages"
        return descriptor_pb2.FileDescriptorSet.FromString(Path(out.name).read_bytes())


@cache
def pool() -> descriptor_pool.DescriptorPool:
    """Returns the pool that knows the messages and their options."""
    known: descriptor_pool.DescriptorPool = descriptor_pool.Default()
    for file in compiled().file:
        known.AddSerializedFile(file.SerializeToString())
    return known


def files() -> list[FileDescriptor]:
    """Returns the compiled files."""
    return [pool().FindFileByName(file.name) for file in compiled().file]


def messages() -> Iterator[Descriptor]:
    """Yields every message of the package."""
    for file in files():
        yield from file.message_types_by_name.values()


@cache
def message_class(name: str) -> type[Message]:
    """Returns the class of a message by its short name."""
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(f"gpufleet.v1.{name}"))


def descriptor_of(name: str) -> Descriptor:
    """Returns the descriptor of a message by its short name."""
    return pool().FindMessageTypeByName(f"gpufleet.v1.{name}")


def parse(name: str, value: bytes | str) -> Message:
    """Returns a message from JSON. Raises json_format.ParseError, also for fields that it does not have."""
    return json_format.Parse(value, message_class(name)())


def option(descriptor: FieldDescriptor, name: str) -> Any:
    """Returns one of the options of `options.proto`."""
    return value_of_option(descriptor.GetOptions(), name)


def value_of_option(options: Any, name: str) -> Any:
    """Returns one of the options of `options.proto` in FieldOptions that were parsed after `pool`."""
    return options.Extensions[pool().FindExtensionByName(f"gpufleet.v1.{name}")]


_SCALARS = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_BOOL: "bool",
}


def _proto_type(descriptor: FieldDescriptor) -> str:
    if descriptor.message_type is not None:
        return str(descriptor.message_type.full_name).removeprefix("gpufleet.v1.")
    return _SCALARS.get(descriptor.type, f"unexpected type {descriptor.type}")


def map_value(descriptor: FieldDescriptor) -> FieldDescriptor | None:
    """Returns the value field of a map, or None for what is no map. Keys are texts."""
    kind = descriptor.message_type
    if kind is None or not kind.GetOptions().map_entry:
        return None
    assert kind.fields_by_name["key"].type == FieldDescriptor.TYPE_STRING
    return kind.fields_by_name["value"]


def oneof_of(descriptor: FieldDescriptor) -> str:
    """Returns the name of the oneof that a field is a member of; empty for `optional` fields and all others."""
    oneof = descriptor.containing_oneof
    return "" if oneof is None or oneof.name.startswith("_") else oneof.name


def message_shape(descriptor: Descriptor) -> list[FieldShape]:
    """Returns the fields of a message, in the order of their names."""
    shapes = []
    for item in descriptor.fields:
        if (entry := map_value(item)) is not None:
            kind = f"map<string, {_proto_type(entry)}>"
        else:
            kind = f"repeated {_proto_type(item)}" if item.is_repeated else _proto_type(item)
        shapes.append(
            FieldShape(
                name=item.name,
                json_name=item.json_name,
                type=kind,
                values=frozenset(option(item, "values")),
                required=option(item, "required"),
                quantities=option(item, "quantities"),
                presence=item.has_presence and kind not in ("google.protobuf.Timestamp", "google.protobuf.Struct"),
                oneof=oneof_of(item),
            )
        )
    return sorted(shapes, key=lambda shape: shape.name)


def models() -> dict[str, type[Wire]]:
    """Returns the pydantic models by the name of their message."""
    import gpufleet.wire.records  # noqa: F401 - defines them

    return {model.__name__.removesuffix("Message"): model for model in Wire.__subclasses__()}


def model_shape(model: type[Wire]) -> list[FieldShape]:
    """Returns the fields of a model, in the order of their names."""
    model.model_rebuild()
    shapes = []
    for name, info in model.model_fields.items():
        kind, values = _python_type(info.annotation, info.metadata)
        shapes.append(
            FieldShape(
                name=name,
                json_name=info.alias or name,
                type=kind,
                values=values,
                required=info.is_required(),
                quantities=any(getattr(mark, "quantities", False) for mark in info.metadata),
                presence=_has_presence(info, kind),
            )
        )
    return sorted(shapes, key=lambda shape: shape.name)


def _has_presence(info: FieldInfo, kind: str) -> bool:
    """Whether absence means something else than the type's zero, as a message's or an `optional` field's does."""
    if kind in ("google.protobuf.Timestamp", "google.protobuf.Struct") or kind.startswith(("repeated ", "map<")):
        return False
    if info.is_required():
        return kind not in ("string", "int32", "double", "bool")
    default = info.get_default(call_default_factory=True, validated_data={})
    return default is None or (kind == "double" and default != 0)


def _python_type(annotation: Any, metadata: list[Any]) -> tuple[str, frozenset[str]]:
    for mark in metadata:
        if isinstance(mark, WireType):
            return mark.name, frozenset()
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _python_type(arguments[0], list(arguments[1:]))
    if origin in (Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _python_type(inner, [])
    if origin is Literal:
        return "string", frozenset(arguments)
    if origin is tuple:
        kind, values = _python_type(arguments[0], [])
        return f"repeated {kind}", values
    if origin is dict:
        return f"map<string, {_python_type(arguments[1], [])[0]}>", frozenset()
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return "string", frozenset(value.value for value in annotation if value.value)
    if isinstance(annotation, type) and issubclass(annotation, Wire):
        return annotation.__name__.removesuffix("Message"), frozenset()
    return {str: "string", int: "int32", float: "double", bool: "bool"}[annotation], frozenset()


@dataclass(frozen=True)
class Record:
    """A record as a consumer gets it."""

    topic: str
    key: str | None
    value: bytes | None
    headers: Mapping[str, str] = field(default_factory=dict)
    offset: int = 0


def example(path: Path) -> Record:
    """Returns the record of a file in `proto/examples`."""
    content = json.loads(path.read_text(encoding="utf-8"))
    value = None if content["value"] is None else json.dumps(content["value"]).encode()
    return Record(content["topic"], content["key"], value, content["headers"], offset=340)
