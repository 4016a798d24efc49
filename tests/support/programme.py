"""Lines that a test shows although it passes: at once, or with its report where it runs in a worker of pytest-xdist."""

from __future__ import annotations

import sys

import pytest

_LINES = pytest.StashKey[list[str]]()
_PROPERTY = "programme"


def programme(config: pytest.Config, line: str) -> None:
    """Shows a line."""
    if hasattr(config, "workerinput"):
        config.stash.setdefault(_LINES, []).append(line)
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        print(line, flush=True)  # noqa: T201


def hand_over(item: pytest.Item) -> None:
    """Puts what a worker has collected on the report that is about to be made."""
    lines = item.config.stash.get(_LINES, [])
    item.user_properties[:] = [entry for entry in item.user_properties if entry[0] != _PROPERTY]
    if lines:
        item.user_properties.append((_PROPERTY, "\n".join(lines)))
        lines.clear()


def show(report: pytest.TestReport) -> None:
    """Prints what came with a report from a worker."""
    if not hasattr(report, "node"):
        return  # not from a worker, or in one
    for name, text in report.user_properties:
        if name == _PROPERTY:
            print(f"\n{text}", file=sys.stdout, flush=True)  # noqa: T201
