"""Rules of `metadata` that hold for every kind: system fields, names, generation."""

from __future__ import annotations

from typing import Any

from sim.api import errors
from sim.api.resources import Resource
from sim.api.values import rfc3339

Json = dict[str, Any]

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"

# Builtin kinds whose generation counts changes of the wanted state.
_COUNTED = frozenset(
    {
        "pods",
        "deployments.apps",
        "replicasets.apps",
        "statefulsets.apps",
        "daemonsets.apps",
        "jobs.batch",
        "cronjobs.batch",
        "poddisruptionbudgets.policy",
        "customresourcedefinitions.apiextensions.k8s.io",
        "priorityclasses.scheduling.k8s.io",
    }
)

# What the server alone writes; a client's value is ignored.
_SYSTEM = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")


def has_generation(resource: Resource) -> bool:
    """Whether objects of the resource carry `metadata.generation`."""
    return resource.custom or resource.storage in _COUNTED


def new_metadata(resource: Resource, given: Json, uid: str, now: float) -> Json:
    """The metadata of a created object."""
    metadata = {key: value for key, value in given.items() if key not in _SYSTEM and value not in ({}, [])}
    for key in ("resourceVersion", "selfLink", "managedFields"):
        metadata.pop(key, None)
    metadata["uid"] = uid
    metadata["creationTimestamp"] = rfc3339(now)
    if has_generation(resource):
        metadata["generation"] = 1
    return metadata


def kept_metadata(given: Json, old: Json) -> Json:
    """The metadata of an update: the client's, with the system fields of the object."""
    metadata = {key: value for key, value in given.items() if key not in _SYSTEM and value not in ({}, [])}
    metadata.pop("selfLink", None)
    for key in _SYSTEM:
        if key in old:
            metadata[key] = old[key]
    return metadata


def wants_new_generation(resource: Resource, new: Json, old: Json) -> bool:
    """Whether an update changes the wanted state: everything but metadata, and status where it is a subresource."""
    if not has_generation(resource):
        return False
    ignored = {"metadata", "apiVersion", "kind"}
    if "status" in resource.subresources or not resource.custom:
        ignored.add("status")
    keys = (new.keys() | old.keys()) - ignored
    return any(new.get(key) != old.get(key) for key in keys)


def check_version(resource: Resource, name: str, given: str | None, old: Json, *, required: bool) -> None:
    """Optimistic locking of updates: 409 if the object has another resourceVersion."""
    if not given or given == "0":
        if required:
            problem = errors.cause(
                "FieldValueInvalid",
                "metadata.resourceVersion",
                f"Invalid value: {given or '0x0'}: must be specified for an update",
            )
            raise errors.invalid(resource, name, [problem])
        return
    if not given.isdigit():
        problem = errors.cause(
            "FieldValueInvalid", "metadata.resourceVersion", f'Invalid value: "{given}": must be a number'
        )
        raise errors.invalid(resource, name, [problem])
    if given != old["metadata"]["resourceVersion"]:
        raise errors.modified(resource, name)


def check_preconditions(resource: Resource, old: Json, uid: str | None, resource_version: str | None) -> None:
    """The preconditions of a delete: 409 if uid or resourceVersion are not the object's."""
    metadata = old["metadata"]
    for label, wanted, have, guess in (
        ("UID", uid, metadata["uid"], "deleted and then recreated"),
        ("ResourceVersion", resource_version, metadata["resourceVersion"], "modified"),
    ):
        if wanted is not None and wanted != have:
            why = (
                f"the {label} in the precondition ({wanted}) does not match the {label} in record ({have}). "
                f"The object might have been {guess}"
            )
            raise errors.conflict(resource, metadata["name"], why)
