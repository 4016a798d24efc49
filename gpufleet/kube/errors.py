"""Errors of the Kubernetes client. Everything it raises is a :class:`KubeError`."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

# What msgspec raises on bytes that are no JSON (DecodeError and UnicodeDecodeError are ValueErrors) or nest too deeply.
UNREADABLE = (ValueError, RecursionError)


class KubeError(Exception):
    """Base of every error of this package."""


class AccessError(KubeError):
    """A cluster's access description cannot be used. The message names the cluster and the remedy."""

    def __init__(self, cluster: str, problem: str, remedy: str = "") -> None:
        self.cluster = cluster
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"cluster {cluster}: {problem}" + (f"; {remedy}" if remedy else ""))


class Unreachable(KubeError):
    """No answer: refused, reset, broken off or timed out. Whether a write took effect is unknown."""


class NotServed(KubeError):
    """The cluster does not serve this kind (a CustomResourceDefinition is missing, or the version is old)."""

    def __init__(self, cluster: str, api_version: str, kind: str) -> None:
        self.cluster = cluster
        self.api_version = api_version
        self.kind = kind
        super().__init__(f"cluster {cluster} does not serve {kind} in {api_version}")


class BadAnswer(KubeError):
    """The server answered with something that is not the JSON of the Kubernetes API."""


class Cause(NamedTuple):
    """One entry of ``details.causes`` of a Status."""

    reason: str
    message: str
    field: str


class ApiStatusError(KubeError):
    """The API server refused a request.

    ``status`` is the HTTP status (or the code of an ERROR event in a watch), ``reason`` the machine-readable
    reason of the Status ("AlreadyExists", "Conflict", ...; empty if there was none), ``retry_after`` seconds.
    ``details_kind`` and ``details_name`` say which object the refusal is about, where the server said so;
    ``from_api`` is false if the body was no Status, so that something in between has answered.
    """

    def __init__(
        self,
        status: int,
        reason: str = "",
        message: str = "",
        causes: tuple[Cause, ...] = (),
        retry_after: float | None = None,
        *,
        details_kind: str = "",
        details_name: str = "",
        request: str = "",
        from_api: bool = True,
    ) -> None:
        self.status = status
        self.reason = reason
        self.message = message
        self.causes = causes
        self.retry_after = retry_after
        self.details_kind = details_kind
        self.details_name = details_name
        self.request = request
        self.from_api = from_api
        head = f"{request}: " if request else ""
        super().__init__(f"{head}{status} {reason or 'error'}: {message}")

    @property
    def conflict(self) -> bool:
        """Any 409: the object exists, has changed, has another uid, or a field has another manager."""
        return self.status == 409

    @property
    def already_exists(self) -> bool:
        """409 to a create."""
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def field_conflict(self) -> bool:
        """409 to an apply without force: other managers own fields; ``causes`` names them."""
        return self.status == 409 and any(cause.reason == "FieldManagerConflict" for cause in self.causes)

    @property
    def stale(self) -> bool:
        """A precondition did not hold: the object has changed, is gone, or is another one of that name.

        The server says 409, but to an apply with another object's uid and its resourceVersion it says 422.
        """
        if self.status == 422:
            return any(cause.field == "metadata.uid" for cause in self.causes)
        return self.status == 409 and not self.already_exists and not self.field_conflict

    @property
    def not_found(self) -> bool:
        return self.status == 404

    @property
    def namespace_missing(self) -> bool:
        """404 to a write because the namespace does not exist."""
        return self.status == 404 and self.details_kind == "namespaces"

    @property
    def namespace_terminating(self) -> bool:
        """403 to a create because the namespace is being deleted."""
        return self.status == 403 and any(cause.reason == "NamespaceTerminating" for cause in self.causes)

    @property
    def path_missing(self) -> bool:
        """404 for the path itself, not for an object: the kind is not served (any more)."""
        return self.status == 404 and not self.details_name

    @property
    def unauthorized(self) -> bool:
        return self.status == 401

    @property
    def forbidden(self) -> bool:
        return self.status == 403

    @property
    def invalid(self) -> bool:
        """The request is wrong: sending it again cannot help. 400, 422, and a 500 without a reason.

        The server answers the latter to an apply with an unknown field or a bad quantity; its own failures
        have the reason InternalError.
        """
        return (self.status in (400, 422) and not self.stale) or self._nameless_500

    @property
    def expired(self) -> bool:
        """410: the resourceVersion or the continue token is too old; list again."""
        return self.status == 410

    @property
    def throttled(self) -> bool:
        return self.status == 429

    @property
    def unavailable(self) -> bool:
        """The server failed or is overloaded: any 5xx but 501, 505 and a 500 that means ``invalid``."""
        return self.status >= 500 and self.status not in (501, 505) and not self._nameless_500

    @property
    def _nameless_500(self) -> bool:
        return self.status == 500 and self.from_api and not self.reason


class _Cause(msgspec.Struct):
    reason: str = ""
    message: str = ""
    field: str = ""


class _Details(msgspec.Struct, rename="camel"):
    name: str = ""
    kind: str = ""
    causes: list[_Cause] = []
    retry_after_seconds: float = 0


class _Status(msgspec.Struct):
    kind: str = ""
    reason: str = ""
    message: str = ""
    code: int = 0
    details: _Details | None = None


_status_decoder = msgspec.json.Decoder(_Status)
MAX_MESSAGE = 500


def parse_retry_after(value: str | None) -> float | None:
    """Seconds from a ``Retry-After`` header; its date form is not used by the API server and ignored."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        return None


def status_error(
    http_status: int, body: bytes | msgspec.Raw, *, retry_after: float | None = None, request: str = ""
) -> ApiStatusError:
    """The error for an answer: a ``Status`` object in JSON, or whatever a proxy in between has sent."""
    try:
        status = _status_decoder.decode(body)
        is_status = status.kind == "Status"
    except UNREADABLE:
        is_status = False
    if not is_status:
        text = bytes(body)[: MAX_MESSAGE * 4].decode("utf-8", "replace").strip()[:MAX_MESSAGE]
        return ApiStatusError(http_status, "", text, retry_after=retry_after, request=request, from_api=False)
    details = status.details or _Details()
    if retry_after is None and details.retry_after_seconds > 0:
        retry_after = details.retry_after_seconds
    return ApiStatusError(
        http_status or status.code,
        status.reason,
        status.message,
        tuple(Cause(c.reason, c.message, c.field) for c in details.causes),
        retry_after,
        details_kind=details.kind,
        details_name=details.name,
        request=request,
    )
