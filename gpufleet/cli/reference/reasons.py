"""The page of verdicts and reason codes."""

from __future__ import annotations

from gpufleet.cli.reference.markdown import code, page, table
from gpufleet.model.explanations import EVICTIONS, REASONS, VERDICTS, Explanation


def reasons_page() -> str:
    """Returns the page."""
    return page(
        "Verdicts and reasons",
        "One vocabulary for the command line, topics, logs and metrics. `gpufleet explain NAMESPACE/KIND/NAME` shows "
        "the verdict of a workload and the reasons with their numbers.",
        "## Verdicts",
        table(("verdict", "meaning"), [(code(verdict.value), text) for verdict, text in VERDICTS.items()]),
        "## Reasons",
        "In placements (why a cluster, or the fleet, did not take all of a workload) and in observations (why an "
        "assignment is not applied).",
        *(_entry(reason.value, explanation) for reason, explanation in REASONS.items()),
        "## Evictions",
        "Why the rescheduler took replicas back: in evictions, in logs, and the label `reason` of "
        "`gpufleet_rescheduler_evictions_total`.",
        *(_entry(name, explanation) for name, explanation in EVICTIONS.items()),
    )


def _entry(name: str, explanation: Explanation) -> str:
    return f"### {name}\n\n{explanation.cause}\n\n*What helps:* {explanation.remedy}"
