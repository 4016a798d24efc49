"""Failures of the Kubernetes API, rendered as `Status` objects.

The messages follow kube-apiserver, because clients (kubectl among them) match on code, reason and causes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sim.api.resources import Resource

Json = dict[str, Any]


class ApiError(Exception):
    """A request that the API refuses.

    `code` is the HTTP status, `reason` the machine-readable `StatusReason`, `details` the `details` of the Status
    (name, group, kind, causes, retryAfterSeconds).
    """

    def __init__(self, code: int, reason: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details: Json = dict(details) if details else {}

    def status(self) -> Json:
        """The failure as a `v1 Status` document."""
        document: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            document["reason"] = self.reason
        if self.details:
            document["details"] = self.details
        document["code"] = self.code
        return document


def cause(reason: str, field: str, message: str) -> Json:
    """One entry of `details.causes`; reason is a `CauseType` such as FieldValueInvalid."""
    return {"reason": reason, "message": message, "field": field}


def _details(resource: Resource, name: str) -> Json:
    details: Json = {"name": name, "kind": resource.plural}
    if resource.group:
        details["group"] = resource.group
    return details


def not_found(resource: Resource, name: str) -> ApiError:
    """404: the object does not exist."""
    return ApiError(404, "NotFound", f'{resource.group_resource} "{name}" not found', _details(resource, name))


def path_not_found() -> ApiError:
    """404: no such API path, group, version or resource."""
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def already_exists(resource: Resource, name: str) -> ApiError:
    """409: create of a name that is taken."""
    message = f'{resource.group_resource} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, _details(resource, name))


def conflict(resource: Resource, name: str, why: str) -> ApiError:
    """409: the object is not in the state that the request was made for."""
    message = f'Operation cannot be fulfilled on {resource.group_resource} "{name}": {why}'
    return ApiError(409, "Conflict", message, _details(resource, name))


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def modified(resource: Resource, name: str) -> ApiError:
    """409: the resourceVersion in the request is not the object's."""
    return conflict(resource, name, MODIFIED)


def apply_conflict(message: str, causes: Iterable[Json]) -> ApiError:
    """409: server-side apply would change fields that other managers own."""
    return ApiError(409, "Conflict", message, {"causes": list(causes)})


def invalid(resource: Resource, name: str, causes: Iterable[Json]) -> ApiError:
    """422: the object is well-formed but breaks rules; one cause per field."""
    listed = list(causes)
    texts = [f"{c['field']}: {c['message']}" for c in listed]
    summary = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    details: Json = {"name": name, "kind": resource.kind, "causes": listed}
    if resource.group:
        details["group"] = resource.group
    return ApiError(422, "Invalid", f'{kind} "{name}" is invalid: {summary}', details)


def invalid_options(kind: str, problem: Json) -> ApiError:
    """422: an option of the request (PatchOptions, DeleteOptions, ...) that is not allowed."""
    message = f'{kind}.meta.k8s.io "" is invalid: {problem["field"]}: {problem["message"]}'
    return ApiError(422, "Invalid", message, {"group": "meta.k8s.io", "kind": kind, "causes": [problem]})


def bad_request(message: str) -> ApiError:
    """400: the request cannot be understood."""
    return ApiError(400, "BadRequest", message)


def forbidden(resource: Resource, name: str, why: str, causes: Iterable[Json] = ()) -> ApiError:
    """403: understood, and refused by policy."""
    details = _details(resource, name)
    listed = list(causes)
    if listed:
        details["causes"] = listed
    message = f'{resource.group_resource} "{name}" is forbidden: {why}'
    return ApiError(403, "Forbidden", message, details)


def unauthorized() -> ApiError:
    """401: no bearer token, or the wrong one."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def expired(message: str) -> ApiError:
    """410: the resourceVersion or continue token is older than what is kept."""
    return ApiError(410, "Expired", message)


def future_version(wanted: int, current: int) -> ApiError:
    """504: the resourceVersion asked for does not exist yet."""
    details = {"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]}
    message = f"Timeout: Too large resource version: {wanted}, current: {current}"
    return ApiError(504, "Timeout", message, {**details, "retryAfterSeconds": 1})


def method_not_allowed(resource: Resource, verb: str) -> ApiError:
    """405: the resource exists, the verb does not."""
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message, {"kind": resource.plural, "group": resource.group, "name": verb})


def unsupported_media_type(given: str, accepted: Iterable[str]) -> ApiError:
    """415: the body's content type is not one that the verb takes."""
    listed = ", ".join(accepted)
    message = f"the body of the request was in an unknown format - accepted media types include: {listed}"
    return ApiError(415, "UnsupportedMediaType", message + (f" (got {given})" if given else ""))


def too_many_requests(message: str, retry_after: int, causes: Iterable[Json] = ()) -> ApiError:
    """429: try again after `retry_after` seconds."""
    details: Json = {"retryAfterSeconds": retry_after}
    listed = list(causes)
    if listed:
        details["causes"] = listed
    return ApiError(429, "TooManyRequests", message, details)
