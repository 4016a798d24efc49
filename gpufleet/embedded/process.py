"""Child processes that never outlive their parent.

On POSIX the program is started by a small ``sh`` that holds the read end of a pipe. The kernel closes the
write end when the parent goes, however it goes, and the shell then kills the program. Unlike
``PR_SET_PDEATHSIG`` this is portable, does not depend on which thread started the program, and runs no Python
between fork and exec.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

# stdin: the life line. stdout: one line, the program's process id. The program's own output goes to stderr.
_SUPERVISOR = """
exec 3<&0
"$@" </dev/null >&2 3<&- &
child=$!
(read -r _ <&3; kill -9 "$child") </dev/null >/dev/null 2>&1 &
watcher=$!
echo "$child"
exec 3<&- >&2
wait "$child" 2>/dev/null
code=$?
kill -9 "$watcher" 2>/dev/null
exit "$code"
"""


@dataclass
class SupervisedProcess:
    """One program, started with :meth:`start` and gone after :meth:`stop` or when this process ends.

    ``log`` receives what the program writes (appended); without it the output is dropped.
    """

    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    log: Path | None = None
    pid: int = field(default=0, init=False)
    _shell: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def start(self) -> SupervisedProcess:
        """Start the program. Raises ``FileNotFoundError`` if the executable is not there."""
        if self.running:
            raise RuntimeError(f"{self.argv[0]} is already running (pid {self.pid})")
        if os.sep in self.argv[0] and not Path(self.argv[0]).is_file():
            raise FileNotFoundError(f"no such program: {self.argv[0]}")
        with contextlib.ExitStack() as closing:
            output: int | IO[bytes] = subprocess.DEVNULL
            if self.log is not None:
                output = closing.enter_context(self.log.open("ab"))
            if sys.platform == "win32":
                self._start_plain(output)
            else:
                self._start_supervised(output)
        return self

    def _start_supervised(self, output: int | IO[bytes]) -> None:
        # A session of its own: Ctrl-C reaches the parent only, which stops its children in its own order.
        shell = subprocess.Popen(
            ["/bin/sh", "-c", _SUPERVISOR, "gpufleet-supervisor", *self.argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env=dict(self.env) if self.env is not None else None,
            cwd=self.cwd,
            start_new_session=True,
        )
        self._shell = shell
        assert shell.stdout is not None
        with shell.stdout as line:
            self.pid = int(line.readline() or 0)

    def _start_plain(self, output: int | IO[bytes]) -> None:
        self._shell = subprocess.Popen(
            list(self.argv), stdin=subprocess.PIPE, stdout=output, stderr=output, env=self.env, cwd=self.cwd
        )
        self.pid = self._shell.pid

    @property
    def running(self) -> bool:
        """True while the program has not ended."""
        return self._shell is not None and self._shell.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit status as a shell gives it (128 + signal); None while it runs or before it was started."""
        return None if self._shell is None else self._shell.poll()

    def signal(self, number: int) -> None:
        """Send a signal to the program itself; nothing happens if it has ended."""
        if self.running and self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, timeout: float) -> bool:
        """Wait until the program has ended, at most ``timeout`` seconds; says whether it has."""
        if self._shell is None:
            return True
        try:
            self._shell.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End the program at once (SIGKILL) and wait for it."""
        self.stop(grace=0.0)

    def stop(self, grace: float = 5.0) -> None:
        """Ask the program to end (SIGTERM), after ``grace`` seconds end it (SIGKILL). Safe to call twice."""
        shell = self._shell
        if shell is None:
            return
        if grace > 0:
            self.signal(signal.SIGTERM)
            self.wait(grace)
        if shell.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                shell.stdin.close()  # the life line: the supervisor kills the program
        if sys.platform == "win32":
            shell.kill()
        if not self.wait(5.0):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()

    def log_tail(self, lines: int = 15) -> str:
        """The last lines that the program wrote, for error messages."""
        if self.log is None or not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> SupervisedProcess:
        return self if self.running else self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()
