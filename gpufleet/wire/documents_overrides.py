"""OverridePolicy and ClusterOverridePolicy, in ACK One's, Karmada's and the older form (specification 1.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field

from gpufleet.model import kinds
from gpufleet.model.overrides import (
    ArgumentOverrider,
    FieldOverrider,
    ImageOverrider,
    ImagePart,
    LabelOverrider,
    Operator,
    OverridePolicy,
    OverrideRule,
    PatchOperation,
)
from gpufleet.model.patch import PatchError, steps
from gpufleet.model.resources import Labels
from gpufleet.wire.documents_parts import ObjectDoc, name_of, read_annotations, read_labels
from gpufleet.wire.documents_policy import SelectorDoc, read_resource_selector
from gpufleet.wire.documents_policy_placement import AffinityDoc, read_affinity
from gpufleet.wire.documents_schema import Doc, Findings, check, refuse_placeholders
from gpufleet.wire.documents_spellings import normalise

Change = Literal["add", "remove", "replace"]
# What makes an object the one that it is; what is changed there is another object.
_IDENTITY = (("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace"))


class PlaintextDoc(Doc):
    """A JSON patch operation on the object."""

    path: str
    operator: Change
    value: Any = None


class OperationDoc(Doc):
    """A JSON patch operation inside of a field's text."""

    sub_path: str
    operator: Change
    value: Any = None


class FieldDoc(Doc):
    """Changes of a document that is the text of a field."""

    field_path: str
    json_: list[OperationDoc] = Field(default_factory=list, alias="json")
    yaml: list[OperationDoc] = Field(default_factory=list)


class PredicateDoc(Doc):
    """Which image."""

    path: str


class ImageDoc(Doc):
    """A change of images."""

    predicate: PredicateDoc | None = None
    component: Literal["Registry", "Repository", "Tag"]
    operator: Change
    value: str = ""


class ArgumentsDoc(Doc):
    """A change of a container's command or args."""

    container_name: str = Field(min_length=1)
    operator: Literal["add", "remove"]
    value: list[str] = Field(default_factory=list)


class LabelsDoc(Doc):
    """A change of labels or annotations."""

    operator: Change
    value: dict[str, str] = Field(default_factory=dict)


class OverridersDoc(Doc):
    """What is changed."""

    plaintext: list[PlaintextDoc] = Field(default_factory=list)
    image_overrider: list[ImageDoc] = Field(default_factory=list)
    command_overrider: list[ArgumentsDoc] = Field(default_factory=list)
    args_overrider: list[ArgumentsDoc] = Field(default_factory=list)
    labels_overrider: list[LabelsDoc] = Field(default_factory=list)
    annotations_overrider: list[LabelsDoc] = Field(default_factory=list)
    field_overrider: list[FieldDoc] = Field(default_factory=list)


class RuleDoc(Doc):
    """Overriders for some clusters."""

    target_cluster: AffinityDoc | None = None
    overriders: OverridersDoc


class SpecDoc(Doc):
    """The policy. `targetCluster` and `overriders` are the older form of a single rule."""

    resource_selectors: list[SelectorDoc] = Field(default_factory=list)
    override_rules: list[RuleDoc] = Field(default_factory=list)
    target_cluster: AffinityDoc | None = None
    overriders: OverridersDoc | None = None


class OverrideDoc(ObjectDoc):
    """The whole document."""

    spec: SpecDoc
    status: Any = None


class _Place(NamedTuple):
    """Where in the document something is, and who notes what is wrong there."""

    path: str
    findings: Findings

    def at(self, name: str, index: int) -> _Place:
        return _Place(f"{self.path}.{name}[{index}]", self.findings)

    def error(self, field: str, message: str, hint: str = "") -> None:
        self.findings.error(f"{self.path}.{field}" if field else self.path, message, hint)

    def warn(self, field: str, message: str, hint: str = "") -> None:
        self.findings.warn(f"{self.path}.{field}", message, hint)


def read(manifest: Mapping[str, Any], findings: Findings, version: int = 0) -> OverridePolicy | None:
    """Returns an override policy; ``version`` is the offset of its record. None where too little of it is right."""
    refuse_placeholders(manifest, findings)
    namespaced = manifest.get("kind") == "OverridePolicy"
    normal, _ = normalise(manifest, findings)
    doc = check(OverrideDoc, normal, findings)
    if doc is None:
        return None
    namespace, name = name_of(doc.metadata, findings, namespaced=namespaced)
    spec = doc.spec
    old = spec.target_cluster is not None or spec.overriders is not None
    if old and spec.override_rules:
        field = "targetCluster" if spec.target_cluster is not None else "overriders"
        findings.error(f"spec.{field}", "cannot stand beside overrideRules", "make it a rule of spec.overrideRules")
    if not old and not spec.override_rules:
        findings.error("spec.overrideRules", "is empty", "add a rule: targetCluster, and overriders for it")
    if old:
        rules: tuple[OverrideRule, ...] = (
            _rule(spec.target_cluster, spec.overriders or OverridersDoc(), _Place("spec", findings)),
        )
    else:
        rules = tuple(
            _rule(rule.target_cluster, rule.overriders, _Place(f"spec.overrideRules[{index}]", findings))
            for index, rule in enumerate(spec.override_rules)
        )
    return OverridePolicy(
        name=name,
        namespace=namespace,
        selectors=tuple(
            read_resource_selector(selector, namespace, f"spec.resourceSelectors[{index}]", findings)
            for index, selector in enumerate(spec.resource_selectors)
        ),
        rules=rules,
        version=version,
        digest=kinds.digest(manifest),
    )


def _rule(target: AffinityDoc | None, doc: OverridersDoc, rule: _Place) -> OverrideRule:
    here = _Place(f"{rule.path}.overriders", rule.findings)
    return OverrideRule(
        target=None if target is None else read_affinity(target, f"{rule.path}.targetCluster", rule.findings),
        images=tuple(_image(d, here.at("imageOverrider", i)) for i, d in enumerate(doc.image_overrider)),
        command=_arguments(doc.command_overrider),
        args=_arguments(doc.args_overrider),
        labels=tuple(
            _labels(d, here.at("labelsOverrider", i), read_labels) for i, d in enumerate(doc.labels_overrider)
        ),
        annotations=tuple(
            _labels(d, here.at("annotationsOverrider", i), read_annotations)
            for i, d in enumerate(doc.annotations_overrider)
        ),
        fields=tuple(_field(d, here.at("fieldOverrider", i)) for i, d in enumerate(doc.field_overrider)),
        plaintext=tuple(_plaintext(d, here.at("plaintext", i)) for i, d in enumerate(doc.plaintext)),
    )


def _image(doc: ImageDoc, here: _Place) -> ImageOverrider:
    if doc.operator != "remove" and not doc.value:
        here.error("value", "is missing", f"{doc.operator} needs one; only remove goes without")
    path = ""
    if doc.predicate is not None:
        path = doc.predicate.path
        _pointer(path, "predicate.path", here)
    return ImageOverrider(ImagePart(doc.component), Operator(doc.operator), doc.value, path)


def _arguments(docs: Sequence[ArgumentsDoc]) -> tuple[ArgumentOverrider, ...]:
    return tuple(ArgumentOverrider(d.container_name, Operator(d.operator), tuple(d.value)) for d in docs)


def _labels(
    doc: LabelsDoc, here: _Place, read_values: Callable[[Mapping[str, str], str, Findings], Labels]
) -> LabelOverrider:
    # What is removed is told by its key alone.
    values = dict.fromkeys(doc.value, "") if doc.operator == "remove" else doc.value
    return LabelOverrider(Operator(doc.operator), read_values(values, f"{here.path}.value", here.findings))


def _field(doc: FieldDoc, here: _Place) -> FieldOverrider:
    if bool(doc.json_) == bool(doc.yaml):
        here.error("", "needs either json or yaml", "set the one that the field's text is written in")
    _pointer(doc.field_path, "fieldPath", here)
    _same_object(doc.field_path, "fieldPath", here)
    docs, name = (doc.yaml, "yaml") if doc.yaml else (doc.json_, "json")
    operations = []
    for index, operation in enumerate(docs):
        inner = here.at(name, index)
        _pointer(operation.sub_path, "subPath", inner)
        _value(operation, inner)
        operations.append(PatchOperation(operation.sub_path, Operator(operation.operator), operation.value))
    return FieldOverrider(doc.field_path, tuple(operations), yaml=bool(doc.yaml))


def _plaintext(doc: PlaintextDoc, here: _Place) -> PatchOperation:
    _pointer(doc.path, "path", here)
    _same_object(doc.path, "path", here)
    if doc.path == "/spec/replicas":
        here.warn("path", "sets replicas that no decision counts", "divide them by weight in the PropagationPolicy")
    if doc.operator == "remove" and doc.value is not None:
        here.warn("value", "is ignored, because the operator is remove")
    return PatchOperation(doc.path, Operator(doc.operator), doc.value)


def _value(doc: OperationDoc, here: _Place) -> None:
    if doc.operator == "remove" and doc.value is not None:
        here.error("value", "is not allowed for remove", "leave it out")
    elif doc.operator != "remove" and "value" not in doc.model_fields_set:
        here.error("value", "is missing", f"{doc.operator} needs one")


def _pointer(path: str, field: str, here: _Place) -> None:
    try:
        steps(path)
    except PatchError:
        here.error(field, f"is {path!r}", "write a JSON pointer, such as /spec/template/spec/nodeSelector")


def _same_object(path: str, field: str, here: _Place) -> None:
    if path.startswith("/") and (steps(path) in _IDENTITY or path == "/metadata"):
        here.error(field, f"{path} would make it another object", "override what is inside of it")
