"""Logs: one JSON object or line per event, also for the loggers of libraries."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from gpufleet.telemetry.logs import configure


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_events_and_library_lines_are_json() -> None:
    stream = io.StringIO()
    configure(stream=stream, service="scheduler")
    structlog.get_logger("gpufleet.x").info("plan.rejected", workload="a/Job/b", count=3)
    structlog.get_logger("gpufleet.x").debug("not.shown")
    logging.getLogger("aiokafka").warning("lost %s", "it")
    event, foreign = lines(stream)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "plan.rejected",
        "level": "info",
        "logger": "gpufleet.x",
        "service": "scheduler",
        "workload": "a/Job/b",
        "count": 3,
    }
    assert (foreign["event"], foreign["level"], foreign["logger"]) == ("lost it", "warning", "aiokafka")


def test_exceptions_are_whole() -> None:
    stream = io.StringIO()
    configure(stream=stream)
    try:
        raise KeyError("x")
    except KeyError:
        structlog.get_logger("gpufleet.x").exception("task.failed")
    (event,) = lines(stream)
    assert "Traceback" in event["exception"]


def test_bytes_that_are_no_text_do_not_break_the_log() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    configure(stream=stream, format_="console")
    structlog.get_logger("gpufleet.x").info("record.rejected", key="a\udcff")
    stream.flush()
    assert "a\\xff" in stream.buffer.getvalue().decode()


def test_unknown_level() -> None:
    with pytest.raises(ValueError, match="use DEBUG, INFO"):
        configure(level="LOUD")
