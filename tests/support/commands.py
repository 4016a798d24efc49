"""The `gpufleet` command in tests: in this process where that is the same and faster, or as the installed program."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock
from uuid import uuid4

import structlog

GPUFLEET = Path(sys.executable).parent / "gpufleet"
KUBECTL = Path(sys.executable).parent / "kubectl"
MARK = "GPUFLEET_TEST_MARK"


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


@dataclass
class Up:
    """`gpufleet up` as a user runs it, with a folder of its own for temporary files."""

    process: subprocess.Popen[str]
    home: Path
    mark: str
    printed: list[str]
    watcher: subprocess.Popen[bytes]

    @classmethod
    def begin(cls, home: Path, *arguments: str | Path, settings: Mapping[str, str] | None = None) -> Up:
        """Starts it on a free port."""
        mark = uuid4().hex
        environment = {**os.environ, "TMPDIR": str(home), MARK: mark, "PYTHONUNBUFFERED": "1", **(settings or {})}
        with home.with_suffix(".err").open("w") as errors:
            process = subprocess.Popen(
                [GPUFLEET, "up", "--port", "0", *arguments],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                start_new_session=True,
            )
        return cls(process, home, mark, [], _ended_with_us(process.pid))

    @classmethod
    def start(cls, home: Path, *arguments: str | Path, settings: Mapping[str, str] | None = None) -> Up:
        """Starts it on a free port, and waits until it says that it is up."""
        up = cls.begin(home, *arguments, settings=settings)
        assert up.process.stdout is not None
        for line in up.process.stdout:
            up.printed.append(line.rstrip("\n"))
            if "gpufleet apply" in line:
                return up
        raise AssertionError(f"gpufleet up ended with {up.process.wait()}:\n{up.errors()}")

    def errors(self) -> str:
        """What it wrote to standard error."""
        return self.home.with_suffix(".err").read_text(encoding="utf-8")

    def named(self, name: str) -> str:
        """The address that is printed for a name."""
        return next(line.split(maxsplit=1)[1] for line in self.printed if line.strip().startswith(f"{name} "))

    @property
    def bootstrap(self) -> str:
        return self.named("Kafka")

    def kubectl(self, context: str, *arguments: str) -> str:
        """What kubectl prints with the printed kubeconfig."""
        command = [str(KUBECTL), "--kubeconfig", self.named("kubeconfig"), "--context", context, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def interrupt(self) -> int:
        """Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def left(self) -> list[str]:
        """Processes and files that are still there."""
        return [*(f"process {pid}" for pid in _marked(self.mark)), *map(str, self.home.rglob("*"))]

    def close(self) -> None:
        """Ends it, whatever became of the test."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.watcher.kill()
        self.watcher.communicate()


def _ended_with_us(pid: int) -> subprocess.Popen[bytes]:
    """Ends a process when this one ends, however: the pipe that the watcher reads is closed then."""
    script = 'read -r _; kill -INT "$1"'
    return subprocess.Popen(
        ["/bin/sh", "-c", script, "watcher", str(pid)], stdin=subprocess.PIPE, start_new_session=True
    )


def _marked(mark: str) -> list[int]:
    """Ids of the processes that have inherited a mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found
