"""The `gpufleet` command in tests: in this process where that is the same and faster, or as the installed program."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import structlog

GPUFLEET = Path(sys.executable).parent / "gpufleet"
KUBECTL = Path(sys.executable).parent / "kubectl"


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


def gpufleet(*arguments: str | Path, stdin: str | bytes = b"", kafka: str = "") -> Outcome:
    """Runs the command in this process, through the console script's function. Not inside an event loop."""
    from gpufleet.cli.main import run

    out, err = io.StringIO(), io.StringIO()
    given = io.TextIOWrapper(io.BytesIO(stdin.encode() if isinstance(stdin, str) else stdin), encoding="utf-8")
    environment = {"GPUFLEET_KAFKA_BOOTSTRAP": kafka} if kafka else {}
    code = 0
    with (
        _logging_kept(),
        mock.patch.object(sys, "argv", ["gpufleet", *map(str, arguments)]),
        mock.patch.object(sys, "stdin", given),
        mock.patch.dict(os.environ, environment),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            run()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
    return Outcome(code, out.getvalue(), err.getvalue())


def gpufleet_program(
    *arguments: str | Path, stdin: str | bytes = b"", environment: Mapping[str, str] | None = None
) -> Outcome:
    """Runs the installed program."""
    done = subprocess.run(
        [GPUFLEET, *arguments],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        timeout=60,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


@contextlib.contextmanager
def _logging_kept() -> Iterator[None]:
    """Commands set up logging for their process, which is not theirs here."""
    root, configured = logging.getLogger(), structlog.get_config()
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
        structlog.configure(**configured)
        structlog.contextvars.clear_contextvars()
