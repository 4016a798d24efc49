"""What overriders do to an object, as JSON patch operations (specification 1.3, after Karmada's override manager).

Image, command and args overriders without a path act on the `containers` of every pod template. Image names are cut as
upstream cuts them: what stands before the first slash is the registry if it has a dot or a port, or is `localhost`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gpufleet.model import kinds
from gpufleet.model.kinds import pointer
from gpufleet.model.overrides import (
    ArgumentOverrider,
    FieldOverrider,
    ImageOverrider,
    ImagePart,
    LabelOverrider,
    Operator,
    OverrideRule,
    PatchOperation,
)
from gpufleet.model.patch import PatchError, apply_patch, value_at

Patch = Mapping[str, Any]
_TAG = re.compile(r"[A-Za-z0-9_][\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")


def patches(obj: dict[str, Any], rule: OverrideRule) -> Iterator[Patch]:
    """Yields the operations of a rule in upstream's order, each applied to ``obj`` before the next one is made.

    Raises PatchError for one that cannot be applied.
    """
    for operation in _operations(obj, rule):
        apply_patch(obj, operation)
        yield operation


def _operations(obj: dict[str, Any], rule: OverrideRule) -> Iterator[Patch]:
    for image in rule.images:
        yield from _image(obj, image)
    for overrider in rule.command:
        yield from _arguments(obj, overrider, "command")
    for overrider in rule.args:
        yield from _arguments(obj, overrider, "args")
    for change in rule.labels:
        yield from _labels(obj, change, "labels")
    for change in rule.annotations:
        yield from _labels(obj, change, "annotations")
    for field in rule.fields:
        yield _field(obj, field)
    for plain in rule.plaintext:
        yield _operation(plain)


def _containers(obj: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the containers of every pod template, with their JSON pointers."""
    seen = set()
    try:
        templates = kinds.pod_templates(obj)
    except kinds.KindError as error:
        raise PatchError(str(error)) from None
    for template in templates:
        path = pointer((*template.spec, "containers"))
        if path in seen:
            continue
        seen.add(path)
        try:
            containers = value_at(obj, path)
        except PatchError:
            continue  # kinds such as SparkApplication have no list of containers
        for index, container in enumerate(containers if isinstance(containers, list | tuple) else ()):
            if isinstance(container, Mapping):
                yield f"{path}/{index}", container


def _image(obj: Mapping[str, Any], overrider: ImageOverrider) -> Iterator[Patch]:
    if overrider.path:
        found = [(overrider.path, value_at(obj, overrider.path))]
    else:
        found = [(f"{path}/image", container.get("image", "")) for path, container in _containers(obj)]
    for path, image in found:
        if not isinstance(image, str) or not image:
            raise PatchError(f"{path} is no image name")
        yield {"op": "replace", "path": path, "value": changed_image(image, overrider)}


def changed_image(image: str, overrider: ImageOverrider) -> str:
    """Returns an image name with one part changed. A tag that is neither tag nor digest changes nothing."""
    name, _, digest = image.partition("@")
    slash, colon = name.rfind("/"), name.rfind(":")
    tag = ""
    if colon > slash:
        name, tag = name[:colon], name[colon + 1 :]
    registry, _, repository = name.partition("/")
    if not repository or not (registry == "localhost" or "." in registry or ":" in registry):
        registry, repository = "", name
    match overrider.part:
        case ImagePart.REGISTRY:
            registry = _changed(registry, overrider)
        case ImagePart.REPOSITORY:
            repository = _changed(repository, overrider)
        case ImagePart.TAG if overrider.operator is Operator.REMOVE:
            tag = digest = ""
        case ImagePart.TAG:
            wanted = _changed(tag or digest, overrider)
            if _TAG.fullmatch(wanted):
                tag, digest = wanted, ""
            elif _DIGEST.fullmatch(wanted):
                tag, digest = "", wanted
    full = f"{registry}/{repository}" if registry else repository
    return full + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


def _changed(value: str, overrider: ImageOverrider) -> str:
    match overrider.operator:
        case Operator.ADD:
            return value + overrider.value
        case Operator.REPLACE:
            return overrider.value
    return ""


def _arguments(obj: Mapping[str, Any], overrider: ArgumentOverrider, field: str) -> Iterator[Patch]:
    for path, container in _containers(obj):
        if container.get("name") != overrider.container:
            continue
        have = container.get(field)
        known = [str(item) for item in have] if isinstance(have, list | tuple) else []
        if overrider.operator is Operator.REMOVE:
            wanted = [item for item in known if item not in overrider.values]
        else:
            wanted = [*known, *overrider.values]
        if wanted != known:
            yield {"op": "add", "path": f"{path}/{field}", "value": wanted}


def _labels(obj: Mapping[str, Any], overrider: LabelOverrider, field: str) -> Iterator[Patch]:
    metadata = obj.get("metadata")
    present = metadata.get(field) if isinstance(metadata, Mapping) else None
    for key, value in overrider.values:
        path = pointer(("metadata", field, key))
        if overrider.operator is Operator.ADD:
            yield {"op": "add", "path": path, "value": value}
        elif isinstance(present, Mapping) and key in present:
            yield _operation(PatchOperation(path, overrider.operator, value))


def _field(obj: Mapping[str, Any], overrider: FieldOverrider) -> Patch:
    text = value_at(obj, overrider.path)
    if not isinstance(text, str):
        raise PatchError(f"{overrider.path} is no text")
    changes = [_operation(operation) for operation in overrider.operations]
    changed = _in_yaml(text, changes) if overrider.yaml else _in_json(text, changes)
    return {"op": "replace", "path": overrider.path, "value": changed}


def _in_json(text: str, changes: Iterable[Patch]) -> str:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise PatchError(f"the field is no JSON: {error}") from None
    return json.dumps(_edited(document, changes), separators=(",", ":"), ensure_ascii=False)


def _in_yaml(text: str, changes: Iterable[Patch]) -> str:
    import yaml  # only here: most decisions never read any

    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise PatchError(f"the field is no YAML: {' '.join(str(error).split())}") from None
    return yaml.safe_dump(_edited(document, changes), sort_keys=True, allow_unicode=True, default_flow_style=False)


def _edited(document: Any, changes: Iterable[Patch]) -> Any:
    # Under a root, so that a list at the top can be edited too.
    root: dict[str, Any] = {"": document}
    for change in changes:
        apply_patch(root, {**change, "path": f"/{change['path']}"})
    return root[""]


def _operation(operation: PatchOperation) -> Patch:
    if operation.operator is Operator.REMOVE:
        return {"op": "remove", "path": operation.path}
    return {"op": operation.operator.value, "path": operation.path, "value": operation.value}
