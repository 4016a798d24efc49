"""Waiting for a condition instead of for a time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str, timeout: float = 30.0, every: float = 0.02) -> T:
    """The first true value of ``condition``; AssertionError naming ``what`` after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(every)
    return value


@overload
async def eventually(
    condition: Callable[[], Awaitable[T]], what: str, timeout: float = ..., every: float = ...
) -> T: ...
@overload
async def eventually(condition: Callable[[], T], what: str, timeout: float = ..., every: float = ...) -> T: ...
async def eventually(condition: Callable[[], Any], what: str, timeout: float = 30.0, every: float = 0.02) -> Any:
    """As :func:`wait_for`, in an event loop; ``condition`` may be a coroutine function."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        await asyncio.sleep(every)
