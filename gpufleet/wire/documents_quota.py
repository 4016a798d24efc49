"""ElasticQuotaTree (specification 13.1): the tree is read node by node, and held to the rules between nodes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from gpufleet.model import kinds, quantity
from gpufleet.model.kinds.reading import QUANTITY_HINT, is_label_value, is_subdomain, join
from gpufleet.model.quota import MAX_JOBS, ROOT, TREE_NAMESPACE, Amounts, ElasticQuotaTree, Quota, flavored
from gpufleet.wire.documents_parts import ObjectDoc, name_in
from gpufleet.wire.documents_schema import Doc, Findings, check, nearest, refuse_placeholders, shown

API_VERSIONS = ("scheduling.sigs.k8s.io/v1beta1",)
LEND_LIMIT = "alibabacloud.com/lendlimit"
FLAVORS = "resourceflavors"
PREEMPT_POLICY = "preempt-policy"
QUEUE_POLICY = "gpufleet.io/queue-policy"
_ATTRIBUTES = (FLAVORS, PREEMPT_POLICY, LEND_LIMIT, QUEUE_POLICY)
_OF_LEAVES = (FLAVORS, PREEMPT_POLICY, QUEUE_POLICY)
_DEEPEST = 32
_SAME = "min and max of the root are the same: what the fleet has"


class NodeDoc(Doc):
    """One quota; its children are read one by one."""

    name: str = ""
    namespaces: list[str] = Field(default_factory=list)
    min: dict[str, Any] = Field(default_factory=dict)
    max: dict[str, Any] = Field(default_factory=dict)
    attributes: dict[str, Any] = Field(default_factory=dict)
    children: list[Any] = Field(default_factory=list)


class TreeSpecDoc(Doc):
    """The tree."""

    root: dict[str, Any]


class TreeDoc(ObjectDoc):
    """The whole document."""

    spec: TreeSpecDoc
    status: Any = None


class _Reader:
    """What must hold over the whole tree: names and namespaces occur once."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.names: dict[str, str] = {}
        self.namespaces: dict[str, str] = {}

    def node(self, value: Any, path: str, above: tuple[str, ...]) -> Quota | None:
        """Returns a quota with its children; problems name the field."""
        findings = self.findings
        if not isinstance(value, Mapping):
            findings.error(path, "is not a map", "a quota has name, min, max, and namespaces or children")
            return None
        if len(above) >= _DEEPEST:
            findings.error(path, f"is more than {_DEEPEST} levels deep", "make the tree flatter")
            return None
        inner = Findings(findings.namespace)
        doc = check(NodeDoc, value, inner)
        findings.errors.extend(p._replace(path=f"{path}.{p.path}") for p in inner.errors)
        findings.warnings.extend(p._replace(path=f"{path}.{p.path}") for p in inner.warnings)
        if doc is None:
            return None
        name = self._name(doc, path, above)
        low, high = self._amounts(doc.min, f"{path}.min"), self._amounts(doc.max, f"{path}.max")
        attributes = self._attributes(doc.attributes, f"{path}.attributes")
        if doc.children:
            for key in _OF_LEAVES:
                if key in doc.attributes:
                    findings.warn(
                        join(f"{path}.attributes", key),
                        "has no effect, because the quota has children",
                        "give it to them",
                    )
        self._namespaces(doc, path)
        children = [
            self.node(child, f"{path}.children[{index}]", (*above, name)) for index, child in enumerate(doc.children)
        ]
        quota = Quota(
            name=name,
            min=low,
            max=high,
            namespaces=tuple(dict.fromkeys(doc.namespaces)),
            children=tuple(child for child in children if child is not None),
            **attributes,
        )
        self._within(quota, path)
        return quota

    def _name(self, doc: NodeDoc, path: str, above: tuple[str, ...]) -> str:
        if not above:
            if doc.name not in ("", ROOT):
                self.findings.warn(f"{path}.name", f"is {doc.name!r}, but the first quota is always called {ROOT}")
            self.names[ROOT] = path
            return ROOT
        if not doc.name:
            self.findings.error(f"{path}.name", "is missing", "give each quota a name of its own")
        elif doc.name in above:
            self.findings.error(
                f"{path}.name",
                f"{doc.name!r} is also a quota above it, which makes a cycle",
                "a quota cannot be below itself; give it another name",
            )
        elif doc.name in self.names:
            self.findings.error(
                f"{path}.name", f"{doc.name!r} is already {self.names[doc.name]}", "names are unique in the whole tree"
            )
        elif not is_label_value(doc.name):
            self.findings.warn(
                f"{path}.name",
                f"{doc.name[:70]!r} cannot be the value of a label, so no workload can name the quota",
                "use at most 63 letters, digits, '-', '_' and '.'",
            )
        self.names.setdefault(doc.name, path)
        return doc.name

    def _namespaces(self, doc: NodeDoc, path: str) -> None:
        if doc.namespaces and doc.children:
            self.findings.error(
                f"{path}.namespaces", "is given, but the quota has children", "only leaves take namespaces: move them"
            )
        for index, namespace in enumerate(doc.namespaces):
            here = f"{path}.namespaces[{index}]"
            if namespace in self.namespaces:
                self.findings.error(
                    here, f"{namespace!r} is already in {self.namespaces[namespace]}", "a namespace has one quota"
                )
            elif not is_subdomain(namespace):
                self.findings.error(here, f"{namespace!r} cannot be the name of a namespace", "name one that there is")
            self.namespaces.setdefault(namespace, path)

    def _amounts(self, given: Mapping[str, Any], path: str) -> Amounts:
        amounts: dict[str, int] = {}
        for name, value in given.items():
            try:
                if isinstance(value, bool) or not isinstance(value, str | int | float):
                    raise quantity.QuantityError(f"{shown(value)} is not a quantity")
                amount = quantity.parse(value, name, round_up=False)
                if "/" in name and quantity.parse(value, name) != amount:
                    raise quantity.QuantityError(f"{value} is no whole number of {name}")
                if _resource(name) in amounts:
                    raise quantity.QuantityError(f"is there twice, as {_resource(name)}")
                amounts[_resource(name)] = amount
            except quantity.QuantityError as error:
                self.findings.error(join(path, name), str(error), QUANTITY_HINT)
        return tuple(sorted(amounts.items()))

    def _attributes(self, given: Mapping[str, Any], path: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in given.items():
            here = join(path, name)
            if name not in _ATTRIBUTES:
                near = nearest(name, _ATTRIBUTES)
                self.findings.warn(
                    here, "is not a known attribute and is ignored", f"did you mean {near}?" if near else ""
                )
            elif not isinstance(value, str):
                self.findings.error(here, f"must be a text, not {shown(value)}", "attributes are texts: use quotes")
            elif name == FLAVORS:
                found["flavors"] = tuple(sorted({part.strip().lower() for part in value.split(",")} - {""}))
            elif name == PREEMPT_POLICY:
                if value not in ("", "PreemptLowerPriority"):
                    self.findings.error(here, f"is {value!r}", "use PreemptLowerPriority, or leave it out")
                found["preempts_lower"] = value == "PreemptLowerPriority"
            elif name == QUEUE_POLICY:
                if value not in ("Priority", "Block"):
                    self.findings.error(here, f"is {value!r}", "use Priority or Block")
                found["blocking"] = value == "Block"
            else:
                found["lend_limit"] = self._lend_limit(value, here)
        return found

    def _lend_limit(self, text: str, path: str) -> Amounts | None:
        try:
            given = json.loads(text)
        except ValueError:
            given = None
        if not isinstance(given, Mapping):
            self.findings.error(path, f"{shown(text)} is not a JSON map", """write it as '{"cpu": "10"}'""")
            return None
        return self._amounts({str(name): value for name, value in given.items()}, path)

    def _within(self, quota: Quota, path: str) -> None:
        """Holds a quota to its own limits, and its children to them."""
        findings = self.findings
        low, high = dict(quota.min), dict(quota.max)
        for name in sorted(low.keys() & high.keys()):
            if low[name] > high[name]:
                findings.error(
                    join(f"{path}.min", name),
                    f"is {_render(low[name], name)}, more than max {_render(high[name], name)}",
                    "min is what is guaranteed of max",
                )
        guaranteed = {name for child in quota.children for name, _ in child.min} - {MAX_JOBS}
        if quota.name == ROOT:
            for name in sorted((low.keys() | high.keys()) - {MAX_JOBS}):
                given, most = (_render(x[name], name) if name in x else None for x in (low, high))
                if given is not None and most is not None and low[name] < high[name]:
                    findings.error(join(f"{path}.min", name), f"is {given}, but max is {most}", _SAME)
                elif most is None:
                    findings.warn(join(f"{path}.max", name), f"is missing, but min is {given}", _SAME)
                elif given is None and name not in guaranteed:
                    findings.warn(join(f"{path}.min", name), f"is missing, but max is {most}", _SAME)
        for name in sorted(guaranteed):
            total = sum(dict(child.min).get(name, 0) for child in quota.children)
            add_up = f"but the min of its children add up to {_render(total, name)}"
            if name in low and total > low[name]:
                findings.error(
                    join(f"{path}.min", name),
                    f"is {_render(low[name], name)}, {add_up}",
                    "a quota cannot guarantee more than it is guaranteed itself",
                )
            elif name not in low and total:
                findings.warn(
                    join(f"{path}.min", name),
                    f"is missing, {add_up}",
                    "write as much, or what they are guaranteed is not kept for everybody",
                )
        for index, child in enumerate(quota.children):
            for name, amount in child.max:
                if name in high and amount > high[name]:
                    findings.error(
                        join(f"{path}.children[{index}].max", name),
                        f"is {_render(amount, name)}, more than max {_render(high[name], name)} of {quota.name}",
                        "lower it, or raise the quota above",
                    )


def read(manifest: Mapping[str, Any], findings: Findings, version: int = 0) -> ElasticQuotaTree | None:
    """Returns a tree; ``version`` is the offset of its record. None where too little of it is right."""
    refuse_placeholders(manifest, findings)
    doc = check(TreeDoc, manifest, findings)
    if doc is None:
        return None
    name = name_in(doc.metadata, findings, TREE_NAMESPACE, "the tree takes effect")
    root = _Reader(findings).node(doc.spec.root, "spec.root", ())
    return None if root is None else ElasticQuotaTree(name, root, version, kinds.digest(manifest))


def _resource(name: str) -> str:
    """Returns a resource's name; a GPU model is named in any case."""
    resource, slash, model = name.rpartition("/")
    return flavored(resource, model) if slash and resource.endswith("/gpu") else name


def _render(amount: int, name: str) -> str:
    return quantity.render(amount, name)
