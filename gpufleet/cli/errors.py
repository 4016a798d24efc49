"""Exit codes, and the one exception that ends a command with a message."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """0 done, whatever the verdict; 1 an expectation or a wait failed; 2 bad usage or document; 3 no backend."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3


class CliError(Exception):
    """Ends the command: the message goes to stderr."""

    def __init__(self, message: str, code: Exit = Exit.USAGE) -> None:
        super().__init__(message)
        self.code = code
