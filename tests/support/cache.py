"""Where downloaded and built parts are kept between runs, outside the checkout."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path


class ToolMissing(RuntimeError):
    """A program that the real parts need is not on this machine. A failure, never a reason to skip."""


def cache_dir() -> Path:
    """``$GPUFLEET_CACHE``, or ``~/.cache/gpufleet``."""
    named = os.environ.get("GPUFLEET_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "gpufleet"


def require(program: str, purpose: str) -> str:
    """Path of a program; ToolMissing says what it was wanted for."""
    found = shutil.which(program)
    if found is None:
        raise ToolMissing(f"{purpose} needs `{program}` on the PATH; install it and run again")
    return found


def digest(parts: Iterable[bytes]) -> str:
    """A short name for a recipe: it changes when the recipe does."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big"))
        whole.update(part)
    return whole.hexdigest()[:12]


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """The folder that ``build`` fills, made once also by parallel runs, and never seen half made.

    ``build`` gets an empty temporary folder next to ``folder``; it takes that name when ``build`` has returned.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(folder.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            unfinished = Path(tempfile.mkdtemp(prefix=folder.name + ".", dir=folder.parent))
            try:
                build(unfinished)
                unfinished.chmod(0o755)
                unfinished.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return folder
