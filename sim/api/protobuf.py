"""The protobuf bodies that kubectl's `create` commands send, as documents.

kubectl reads JSON everywhere, but `kubectl create namespace|configmap|secret|...` and `kubectl auth can-i` write
protobuf and have no other way. The tables hold the field numbers of the messages that these commands use; a message
with other fields is refused, never half read.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from sim.api import errors

Json = dict[str, Any]

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"

# Field number to (name, kind). Kinds: str, int, bool, bytes, map (of strings), bytesmap, quantities, int-or-string,
# time, skip (written by the server only), or the name of a message; "*" in front for a list.
_Message = dict[int, tuple[str, str]]

_MESSAGES: dict[str, _Message] = {
    "ObjectMeta": {
        1: ("name", "str"),
        2: ("generateName", "str"),
        3: ("namespace", "str"),
        4: ("selfLink", "skip"),
        5: ("uid", "skip"),
        6: ("resourceVersion", "str"),
        7: ("generation", "skip"),
        8: ("creationTimestamp", "skip"),
        11: ("labels", "map"),
        12: ("annotations", "map"),
        14: ("finalizers", "*str"),
    },
    "Namespace": {1: ("metadata", "ObjectMeta"), 2: ("spec", "skip"), 3: ("status", "skip")},
    "ConfigMap": {
        1: ("metadata", "ObjectMeta"),
        2: ("data", "map"),
        3: ("binaryData", "bytesmap"),
        4: ("immutable", "bool"),
    },
    "Secret": {
        1: ("metadata", "ObjectMeta"),
        2: ("data", "bytesmap"),
        3: ("type", "str"),
        4: ("stringData", "map"),
        5: ("immutable", "bool"),
    },
    "ServiceAccount": {1: ("metadata", "ObjectMeta"), 4: ("automountServiceAccountToken", "bool")},
    "PriorityClass": {
        1: ("metadata", "ObjectMeta"),
        2: ("value", "int"),
        3: ("globalDefault", "bool"),
        4: ("description", "str"),
        5: ("preemptionPolicy", "str"),
    },
    "ResourceQuota": {1: ("metadata", "ObjectMeta"), 2: ("spec", "QuotaSpec"), 3: ("status", "skip")},
    "QuotaSpec": {1: ("hard", "quantities"), 2: ("scopes", "*str")},
    "Deployment": {1: ("metadata", "ObjectMeta"), 2: ("spec", "DeploymentSpec"), 3: ("status", "skip")},
    "DeploymentSpec": {
        1: ("replicas", "int"),
        2: ("selector", "LabelSelector"),
        3: ("template", "PodTemplateSpec"),
        4: ("strategy", "DeploymentStrategy"),
        5: ("minReadySeconds", "int"),
        7: ("paused", "bool"),
    },
    "DeploymentStrategy": {1: ("type", "str")},
    "LabelSelector": {1: ("matchLabels", "map")},
    "Job": {1: ("metadata", "ObjectMeta"), 2: ("spec", "JobSpec"), 3: ("status", "skip")},
    "JobSpec": {
        1: ("parallelism", "int"),
        2: ("completions", "int"),
        3: ("activeDeadlineSeconds", "int"),
        6: ("template", "PodTemplateSpec"),
        7: ("backoffLimit", "int"),
        8: ("ttlSecondsAfterFinished", "int"),
        10: ("suspend", "bool"),
    },
    "CronJob": {1: ("metadata", "ObjectMeta"), 2: ("spec", "CronJobSpec"), 3: ("status", "skip")},
    "CronJobSpec": {
        1: ("schedule", "str"),
        3: ("concurrencyPolicy", "str"),
        4: ("suspend", "bool"),
        5: ("jobTemplate", "JobTemplate"),
        8: ("timeZone", "str"),
    },
    "Service": {1: ("metadata", "ObjectMeta"), 2: ("spec", "ServiceSpec"), 3: ("status", "skip")},
    "ServiceSpec": {
        1: ("ports", "*ServicePort"),
        2: ("selector", "map"),
        3: ("clusterIP", "str"),
        4: ("type", "str"),
        7: ("sessionAffinity", "str"),
        8: ("loadBalancerIP", "str"),
        10: ("externalName", "str"),
        11: ("externalTrafficPolicy", "str"),
        12: ("healthCheckNodePort", "int"),
        13: ("publishNotReadyAddresses", "bool"),
    },
    "ServicePort": {
        1: ("name", "str"),
        2: ("protocol", "str"),
        3: ("port", "int"),
        4: ("targetPort", "int-or-string"),
        5: ("nodePort", "int"),
    },
    "JobTemplate": {1: ("metadata", "ObjectMeta"), 2: ("spec", "JobSpec")},
    "PodTemplateSpec": {1: ("metadata", "ObjectMeta"), 2: ("spec", "PodSpec")},
    "PodSpec": {
        2: ("containers", "*Container"),
        3: ("restartPolicy", "str"),
        4: ("terminationGracePeriodSeconds", "int"),
        6: ("dnsPolicy", "str"),
        7: ("nodeSelector", "map"),
        8: ("serviceAccountName", "str"),
        9: ("serviceAccount", "str"),
        10: ("nodeName", "str"),
        11: ("hostNetwork", "bool"),
        12: ("hostPID", "bool"),
        13: ("hostIPC", "bool"),
        16: ("hostname", "str"),
        17: ("subdomain", "str"),
        19: ("schedulerName", "str"),
        24: ("priorityClassName", "str"),
    },
    "Container": {
        1: ("name", "str"),
        2: ("image", "str"),
        3: ("command", "*str"),
        4: ("args", "*str"),
        5: ("workingDir", "str"),
        6: ("ports", "*ContainerPort"),
        7: ("env", "*EnvVar"),
        8: ("resources", "ResourceRequirements"),
        13: ("terminationMessagePath", "str"),
        14: ("imagePullPolicy", "str"),
        16: ("stdin", "bool"),
        17: ("stdinOnce", "bool"),
        18: ("tty", "bool"),
        20: ("terminationMessagePolicy", "str"),
    },
    "ContainerPort": {
        1: ("name", "str"),
        2: ("hostPort", "int"),
        3: ("containerPort", "int"),
        4: ("protocol", "str"),
        5: ("hostIP", "str"),
    },
    "EnvVar": {1: ("name", "str"), 2: ("value", "str")},
    "ResourceRequirements": {1: ("limits", "quantities"), 2: ("requests", "quantities")},
    "PodDisruptionBudget": {1: ("metadata", "ObjectMeta"), 2: ("spec", "BudgetSpec"), 3: ("status", "skip")},
    "BudgetSpec": {
        1: ("minAvailable", "int-or-string"),
        2: ("selector", "LabelSelector"),
        3: ("maxUnavailable", "int-or-string"),
    },
    "SelfSubjectAccessReview": {
        1: ("metadata", "ObjectMeta"),
        2: ("spec", "AccessReviewSpec"),
        3: ("status", "skip"),
    },
    "AccessReviewSpec": {1: ("resourceAttributes", "ResourceAttributes"), 2: ("nonResourceAttributes", "skip")},
    "ResourceAttributes": {
        1: ("namespace", "str"),
        2: ("verb", "str"),
        3: ("group", "str"),
        4: ("version", "str"),
        5: ("resource", "str"),
        6: ("subresource", "str"),
        7: ("name", "str"),
    },
}
# Fields of which zero or false is a value of its own.
_POINTERS = frozenset(
    {
        "replicas",
        "parallelism",
        "completions",
        "backoffLimit",
        "suspend",
        "value",
        "minAvailable",
        "maxUnavailable",
        "automountServiceAccountToken",
    }
)
_ENTRY_POINTS = frozenset(name for name, message in _MESSAGES.items() if message.get(1) == ("metadata", "ObjectMeta"))


class _UnreadableError(ValueError):
    pass


def decode(body: bytes) -> Json:
    """The document in a protobuf body; ApiError 415 if it has kinds or fields that the tables lack."""
    try:
        if not body.startswith(_MAGIC):
            raise _UnreadableError("the body does not begin with the Kubernetes prefix")
        type_meta, raw = b"", b""
        for number, value in _fields(body[len(_MAGIC) :]):
            if number == 1 and isinstance(value, bytes):
                type_meta = value
            elif number == 2 and isinstance(value, bytes):
                raw = value
        names = {number: value.decode() for number, value in _fields(type_meta) if isinstance(value, bytes)}
        api_version, kind = names.get(1, ""), names.get(2, "")
        if kind not in _ENTRY_POINTS:
            raise _UnreadableError(f"kind {kind or '(none)'} is not read from protobuf here")
        return {"apiVersion": api_version, "kind": kind, **_message(kind, raw)}
    except (ValueError, IndexError) as error:
        message = (
            f"the body of the request cannot be read as protobuf ({error}); send JSON or YAML, as kubectl apply does"
        )
        raise errors.ApiError(415, "UnsupportedMediaType", message) from None


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and raw values of a message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
        elif wire == 2:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise _UnreadableError("it ends too early")
            yield number, data[at : at + length]
            at += length
        else:
            raise _UnreadableError(f"wire type {wire} of field {number}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _message(name: str, data: bytes) -> Json:
    known = _MESSAGES[name]
    document: Json = {}
    for number, raw in _fields(data):
        if number not in known:
            raise _UnreadableError(f"field {number} of {name} is not known here")
        field, kind = known[number]
        if kind == "skip":
            continue
        if kind.startswith("*"):
            document.setdefault(field, []).append(_value(kind[1:], raw))
        elif kind in {"map", "bytesmap", "quantities"}:
            key, value = _entry(kind, raw)
            document.setdefault(field, {})[key] = value
        else:
            value = _value(kind, raw)
            # Go writes the empty value of a field that is no pointer where nothing is meant.
            if value not in ("", {}, 0) or field in _POINTERS:
                document[field] = value
    return document


def _value(kind: str, raw: int | bytes) -> Any:
    if isinstance(raw, int):
        if kind == "bool":
            return bool(raw)
        if kind == "int":
            return raw - (1 << 64) if raw >> 63 else raw
        raise _UnreadableError(f"a number where {kind} should be")
    if kind == "str":
        return raw.decode()
    if kind == "int-or-string":
        parts = dict(_fields(raw))
        text = parts.get(3, b"")
        return text.decode() if parts.get(1) and isinstance(text, bytes) else parts.get(2, 0)
    return _message(kind, raw)


def _entry(kind: str, raw: int | bytes) -> tuple[str, str]:
    parts = dict(_fields(raw)) if isinstance(raw, bytes) else {}
    key, value = parts.get(1, b""), parts.get(2, b"")
    if not isinstance(key, bytes) or not isinstance(value, bytes):
        raise _UnreadableError("a malformed map")
    if kind == "bytesmap":
        return key.decode(), base64.b64encode(value).decode()
    if kind == "quantities":
        text = dict(_fields(value)).get(1, b"")
        return key.decode(), text.decode() if isinstance(text, bytes) else ""
    return key.decode(), value.decode()
