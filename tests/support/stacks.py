"""Where a test hangs: the coroutines of its tasks, which the stack of a thread that waits for events does not show."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import FrameType
from typing import Any


def pending_tasks() -> str:
    """Every task that has not ended, of any event loop, with the places at which its coroutines wait."""
    found = [task for task in list(asyncio.tasks._all_tasks) if not task.done()]  # type: ignore[attr-defined]
    return "\n".join(_described(task) for task in sorted(found, key=lambda task: task.get_name()))


def _described(task: asyncio.Task[Any]) -> str:
    places = [
        f"  {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
        for frame in _waiting(task.get_coro())
    ]
    return "\n".join([task.get_name(), *places])


def _waiting(awaited: Any) -> Iterator[FrameType]:
    """Frames from the task's own coroutine to the innermost one."""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
