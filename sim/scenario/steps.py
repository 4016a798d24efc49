"""From a Scenario document to what happens when: files read, patches applied to documents, everything checked.

All of it is done before anything runs, so that a mistake in the last step does not cost the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gpufleet.model import kinds
from gpufleet.model.cluster import Inventory
from gpufleet.model.kinds import Declaration
from gpufleet.model.log import ClusterRegistration
from gpufleet.wire import documents_karmada
from gpufleet.wire.documents import ClusterDocument, Object, Parsed, parse_documents
from gpufleet.wire.documents_errors import DocumentError, DocumentErrors, DocumentWarning
from gpufleet.wire.documents_scenario import (
    Action,
    Apply,
    Delete,
    Expect,
    Expectation,
    Patch,
    Pods,
    Reschedule,
    Scale,
    Scenario,
    Source,
)
from gpufleet.wire.documents_schema import Findings
from gpufleet.wire.yaml import Document
from sim.api.patches import merge_patch
from sim.scenario.settings import ScenarioSettings, read_settings

# Returns the documents of a file that a scenario names; raises OSError.
Read = Callable[[str], Iterable[Document]]


@dataclass(frozen=True, slots=True)
class Submit:
    """Clusters, policies and workloads are submitted, in this order."""

    parsed: Parsed


@dataclass(frozen=True, slots=True)
class SetCluster:
    """From now on a cluster is as its document says."""

    registration: ClusterRegistration
    inventory: Inventory | None


Deed = Submit | SetCluster | Scale | Pods | Reschedule | Delete


@dataclass(frozen=True, slots=True)
class Check:
    """What is expected of a workload; ``where`` names the place in the document."""

    workload: str
    expectation: Expectation
    where: str


@dataclass(slots=True)
class Instant:
    """What happens at one time, in file order, and what is expected once everything that is due then is done."""

    at: float
    deeds: list[Deed] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Script:
    """A scenario that is ready to run. ``instants`` are in order of time; the first is at 0 s.

    ``kinds`` are declared somewhere in its documents, and known from the start.
    """

    start: Parsed
    instants: Sequence[Instant]
    settings: ScenarioSettings
    warnings: tuple[str, ...] = ()
    kinds: tuple[Declaration, ...] = ()


def compile_script(document: Document, scenario: Scenario, read: Read, beside: Sequence[Document] = ()) -> Script:
    """Returns the script of a scenario; documents ``beside`` it are there at the start.

    Raises DocumentErrors with every problem of all documents.
    """
    return _Compiler(document, read).compile(scenario, beside)


class _Compiler:
    def __init__(self, document: Document, read: Read) -> None:
        self._document = document
        self._read = read
        self._errors: list[DocumentError] = []
        self._warnings: list[DocumentWarning] = []
        self._manifests: dict[str, Mapping[str, Any]] = {}
        self._inventories: dict[str, Inventory | None] = {}
        self._workloads: set[str] = set()
        self._kinds: dict[str, Declaration] = {}

    def compile(self, scenario: Scenario, beside: Sequence[Document]) -> Script:
        findings = Findings()
        settings = read_settings(scenario.settings, findings)
        self._errors += [self._document.error(*problem) for problem in findings.errors]
        start = self._parse(scenario.documents, "documents", beside)
        self._learn(start)
        instants: dict[float, Instant] = {0.0: Instant(0.0)}
        for step in sorted(scenario.steps, key=lambda step: step.at):
            instant = instants.setdefault(step.at, Instant(step.at))
            if isinstance(step.action, Expect):
                instant.checks += [
                    Check(key, wanted, self._place(f"{step.path}.expect[{key}]"))
                    for key, wanted in step.action.placements
                ]
            else:
                instant.deeds += self._deeds(step.action, step.path)
        if self._errors:
            raise DocumentErrors(self._errors, self._warnings)
        ordered = [instants[at] for at in sorted(instants)]
        return Script(start, ordered, settings, tuple(map(str, self._warnings)), tuple(self._kinds.values()))

    def _deeds(self, action: Action, path: str) -> list[Deed]:
        match action:
            case Apply(documents):
                return self._apply(documents, f"{path}.apply")
            case Patch(cluster, merge):
                return self._patch(cluster, merge, f"{path}.patch")
            case Pods():
                self._must_know(action.workload, f"{path}.pods.workload")
                if action.cluster not in self._manifests:
                    self._unknown_cluster(action.cluster, f"{path}.pods.cluster")
            case Scale(workload):
                self._must_know(workload, f"{path}.scale.workload")
            case Reschedule(workload):
                self._must_know(workload, f"{path}.reschedule")
            case Delete(workload):
                self._must_know(workload, f"{path}.delete")
            case Expect():
                return []
        return [action]

    def _apply(self, documents: Sequence[Source], path: str) -> list[Deed]:
        parsed = self._parse(documents, path)
        for key in parsed.placements:
            self._error(path, f"a Placement ({key}) says where a workload was at the start", "list it in documents")
        deeds: list[Deed] = [
            self._set(item.value)
            for item in parsed.objects
            if isinstance(item.value, ClusterDocument) and item.key in self._manifests
        ]
        rest = replace(parsed, objects=[], clusters={}, inventories={})
        fresh = {name: r for name, r in parsed.clusters.items() if name not in self._manifests}
        rest.clusters, rest.inventories = fresh, {n: i for n, i in parsed.inventories.items() if n in fresh}
        rest.objects = [item for item in parsed.objects if not isinstance(item.value, ClusterDocument)]
        self._learn(parsed)
        return [*deeds, Submit(rest)]

    def _patch(self, cluster: str, merge: Mapping[str, Any], path: str) -> list[Deed]:
        known = self._manifests.get(cluster)
        if known is None:
            self._unknown_cluster(cluster, f"{path}.cluster")
            return []
        manifest = merge_patch(known, merge)
        findings, before = Findings(), Findings()
        value = documents_karmada.read_either(manifest, findings) if isinstance(manifest, dict) else None
        documents_karmada.read_either(known, before)
        self._warnings += [
            self._document.warning(f"{path}.merge.{p.path}", p.message, p.hint)
            for p in findings.warnings
            if p not in before.warnings
        ]
        self._errors += [self._document.error(f"{path}.merge.{p.path}", p.message, p.hint) for p in findings.errors]
        if value is None or findings.errors:
            return []
        if value.registration.name != cluster:
            self._error(f"{path}.merge.metadata.name", "must stay as it is", "apply a new Cluster document instead")
            return []
        deed = self._set(value)
        self._manifests[cluster], self._inventories[cluster] = manifest, value.inventory
        return [deed]

    def _set(self, value: ClusterDocument) -> SetCluster:
        """Without a `status` the document changes the registration only."""
        known = self._inventories.get(value.registration.name)
        return SetCluster(value.registration, value.inventory if value.inventory is not None else known)

    # -- documents -----------------------------------------------------------------------------------------------

    def _parse(self, sources: Sequence[Source], path: str, beside: Sequence[Document] = ()) -> Parsed:
        documents: list[Document] = list(beside)
        own = self._document
        for index, source in enumerate(sources):
            here = f"{path}[{index}]"
            if isinstance(source, str):
                try:
                    documents += self._read(source)
                except OSError as error:
                    self._error(here, f"{source}: {error.strerror or error}", "paths are relative to the scenario")
            else:
                prefix = f"{own.prefix}.{here}" if own.prefix else here
                documents.append(Document(own.source, own.index, own.line, source, own.text, prefix))
        try:
            with kinds.declaring(self._kinds.values()):
                parsed = parse_documents(documents)
        except DocumentErrors as error:
            self._errors += error.errors
            self._warnings += error.warnings
            return Parsed()
        if parsed.scenario is not None:
            self._error(path, "names a Scenario", "a scenario cannot hold another")
        self._warnings += parsed.warnings
        return parsed

    def _learn(self, parsed: Parsed) -> None:
        self._kinds |= parsed.kinds
        for item in parsed.objects:
            self._learn_cluster(item)
        self._workloads |= parsed.workloads.keys() | parsed.placements.keys()

    def _learn_cluster(self, item: Object) -> None:
        if not isinstance(item.value, ClusterDocument):
            return
        manifest = item.document.manifest
        known = self._manifests.get(item.key)
        if item.value.inventory is None and known is not None and "status" in known:
            manifest = {**manifest, "status": known["status"]}
        else:
            self._inventories[item.key] = item.value.inventory
        self._manifests[item.key] = manifest

    def _must_know(self, workload: str, path: str) -> None:
        if workload not in self._workloads:
            known = ", ".join(sorted(self._workloads)) or "none so far"
            self._error(path, f"{workload!r} was not submitted before", f"known are {known}")

    def _unknown_cluster(self, cluster: str, path: str) -> None:
        known = ", ".join(sorted(self._manifests)) or "none so far"
        self._error(path, f"{cluster!r} is not a cluster of the scenario", f"known are {known}")

    def _error(self, path: str, message: str, hint: str) -> None:
        self._errors.append(self._document.error(path, message, hint))

    def _place(self, path: str) -> str:
        document = self._document
        return f"{document.source}, line {document.line_of(path)}"
