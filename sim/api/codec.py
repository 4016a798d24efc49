"""Bytes to documents and back: JSON by msgspec, YAML where clients send it, and content negotiation."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from gpufleet.wire.yaml import plain
from sim.api import errors, protobuf

Json = dict[str, Any]

JSON = "application/json"
APPLY = "application/apply-patch+yaml"
PATCH_TYPES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    APPLY: "apply",
}

_encoder = msgspec.json.Encoder()


def encode(document: Any) -> bytes:
    """JSON."""
    return _encoder.encode(document)


def decode(body: bytes, media_type: str) -> Any:
    """A request body: JSON, or YAML where the media type says so. ApiError 400 or 415."""
    if media_type.endswith("yaml"):
        return _decode_yaml(body)
    if media_type == protobuf.MEDIA_TYPE:
        return protobuf.decode(body)
    if media_type in {JSON, "", "*/*"} or media_type.endswith("+json"):
        try:
            return msgspec.json.decode(body)
        except msgspec.DecodeError as error:
            raise errors.bad_request(f"the body of the request is no JSON: {error}") from None
    raise errors.unsupported_media_type(media_type, (JSON, "application/yaml"))


def _decode_yaml(body: bytes) -> Any:
    # JSON is YAML, and what clients mostly send under that name; the JSON parser is a hundred times faster.
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        pass
    try:
        return plain(body)
    except yaml.YAMLError as error:
        raise errors.bad_request(f"error decoding YAML: {error}") from None


def accepted(header: str) -> tuple[str, dict[str, str]]:
    """The first media type of an Accept header that can be served, with its parameters: what to render.

    Answers "" (plain JSON), "Table", "PartialObjectMetadata" or "APIGroupDiscoveryList"; ApiError 406.
    """
    if not header:
        return "", {}
    for item in header.split(","):
        media, *parts = (part.strip() for part in item.split(";"))
        parameters = dict(part.split("=", 1) for part in parts if "=" in part)
        if media in {JSON, "*/*", "application/*"}:
            form = parameters.get("as", "")
            if form in {"", "Table", "APIGroupDiscoveryList"}:
                return form, parameters
            if form in {"PartialObjectMetadata", "PartialObjectMetadataList"}:
                return "PartialObjectMetadata", parameters
    message = f"only the following media types are accepted: {JSON}"
    raise errors.ApiError(406, "NotAcceptable", message)
