"""What pods ask of a serverless region that it does not give (specification 15.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gpufleet.model import kinds, quantity
from gpufleet.model.kinds.reading import join
from gpufleet.model.names import ACS, COMPUTE_CLASS, COMPUTE_QOS, GPU_MODEL_SERIES
from gpufleet.model.workload import Workload
from gpufleet.wire.documents_schema import Findings, path_of

_CLASSES = ("general-purpose", "performance", "gpu", "gpu-hpn")
_QOS = ("default", "best-effort")


def lint_labels(labels: Mapping[str, str], path: str, findings: Findings) -> None:
    """Notes values of pod labels that no region knows. ``path`` is that of the labels."""
    compute_class, qos = labels.get(COMPUTE_CLASS), labels.get(COMPUTE_QOS)
    for key, value, known in ((COMPUTE_CLASS, compute_class, _CLASSES), (COMPUTE_QOS, qos, _QOS)):
        if value is not None and value not in known:
            findings.warn(join(path, key), f"is {value!r}", f"use one of {', '.join(known)}")
    if compute_class == "gpu-hpn" and qos == "best-effort":
        findings.warn(join(path, COMPUTE_QOS), "is best-effort, which gpu-hpn does not have", "use default")


def lint_pods(workload: Workload, findings: Findings) -> None:
    """Notes what is odd about the pods of a workload that may run serverless."""
    spec = kinds.spec_for(workload.api_version, workload.kind)
    for template in spec.pod_templates(workload.manifest) if spec is not None else ():
        labels = _at(workload.manifest, template.labels)
        if not isinstance(labels, Mapping) or not {ACS, COMPUTE_CLASS, COMPUTE_QOS} & labels.keys():
            continue
        path = path_of(template.labels)
        lint_labels(labels, path, findings)
        gpu = str(labels.get(COMPUTE_CLASS, "")).startswith("gpu")
        if gpu and labels.get(ACS) == "true" and GPU_MODEL_SERIES not in labels:
            message = f"asks for a GPU, but the label {GPU_MODEL_SERIES} does not say of which model"
            findings.warn(join(path, COMPUTE_CLASS), message, "name a model that the region has")
        if gpu:
            for where in _burstable(_at(workload.manifest, template.spec), path_of(template.spec)):
                message = "is not the limit, but a serverless GPU pod must have requests equal to limits"
                findings.warn(where, message, "leave requests out, or write the same")


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _burstable(spec: Any, path: str) -> Iterator[str]:
    """Yields the paths of requests that differ from their limits."""
    containers = spec.get("containers") if isinstance(spec, Mapping) else None
    for index, found in enumerate(containers if isinstance(containers, list | tuple) else ()):
        resources = found.get("resources") if isinstance(found, Mapping) else None
        requests = (resources or {}).get("requests") or {}
        limits = (resources or {}).get("limits") or {}
        for name, amount in requests.items():
            limit = limits.get(name)
            if limit is None or quantity.parse(limit, name) != quantity.parse(amount, name):
                yield join(f"{join(f'{path}.containers', index)}.resources.requests", name)
