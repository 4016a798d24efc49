"""What is accepted, but will not do what its author wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gpufleet.model.names import REWRITTEN_LABELS
from gpufleet.model.policy import PropagationPolicy
from gpufleet.model.workload import Division, Workload
from gpufleet.wire.documents_errors import DocumentWarning
from gpufleet.wire.documents_schema import Findings

if TYPE_CHECKING:
    from gpufleet.wire.documents import Parsed

# The policy that counts for a workload, or None, and the others that match too.
Select = Callable[[Workload], tuple[PropagationPolicy | None, tuple[PropagationPolicy, ...]]]


def lint_workload(workload: Workload, findings: Findings) -> None:
    """Notes what is odd about one workload."""
    if workload.division is Division.REPLICAS:
        spec = workload.manifest.get("spec")
        selector = spec.get("selector") if isinstance(spec, Mapping) else None
        wanted = selector.get("matchLabels") if isinstance(selector, Mapping) else None
        for key in sorted(REWRITTEN_LABELS.intersection(wanted if isinstance(wanted, Mapping) else ())):
            findings.warn(
                f"spec.selector.matchLabels[{key}]",
                "is a label that schedulers rewrite, so the controller would create pods without end",
                "leave it out of the selector",
            )


def lint_policies(parsed: Parsed, select: Select) -> list[DocumentWarning]:
    """Returns a warning for each workload that several policies of the documents match."""
    warnings = []
    for key, workload in sorted(parsed.workloads.items()):
        chosen, others = select(workload)
        document = parsed.document_of(key)
        if chosen is not None and others and document is not None:
            ignored = ", ".join(policy.key for policy in others)
            warnings.append(
                document.warning(
                    "",
                    f"{key} is matched by {chosen.key} and by {ignored}; only {chosen.key} counts",
                    "narrow one policy's resourceSelectors, or set spec.priority",
                )
            )
    return warnings
