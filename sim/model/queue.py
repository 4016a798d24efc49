"""Which keys have to be reconciled, and which later: the deterministic heart of both drivers."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sim.model.api import Controller, Event, Kind, Ref, View, ref_of

FIRST_RETRY, LAST_RETRY = 0.05, 60.0


class Task(NamedTuple):
    """A key, and the index of the controller that it is for."""

    controller: int
    key: Ref


class TaskQueue:
    """First in, first out; a key that waits already is not queued again.

    Failed keys come again after 50 ms, doubled each time up to a minute. `trouble` is called where a controller cannot
    take a change in.
    """

    def __init__(
        self,
        controllers: Sequence[Controller],
        trouble: Callable[[str, Ref, Exception], None] = lambda *_: None,
    ) -> None:
        self.controllers = tuple(controllers)
        self._trouble = trouble
        self._by_kind: dict[Kind, list[int]] = {}
        for index, controller in enumerate(self.controllers):
            for kind in dict.fromkeys(controller.watches):
                self._by_kind.setdefault(kind, []).append(index)
        self._ready: dict[Task, None] = {}
        self._wakes: dict[Task, float] = {}
        self._heap: list[tuple[float, int, Task]] = []
        self._counter = 0
        self._failures: dict[Task, int] = {}

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds that some controller watches, sorted."""
        return tuple(sorted(self._by_kind))

    def __len__(self) -> int:
        return len(self._ready)

    def observe(self, view: View, event: Event) -> bool:
        """Tells the controllers of a change; whether there is work where there was none."""
        idle = not self._ready
        for index in self._by_kind.get(event.kind, ()):
            controller = self.controllers[index]
            try:
                for key in controller.observe(view, event):
                    self._ready[Task(index, key)] = None
            except Exception as error:
                self._trouble(controller.name, ref_of(event.current), error)
        return idle and bool(self._ready)

    def due(self, now: float) -> None:
        """Moves keys whose time has come to the queue."""
        while self._heap and self._heap[0][0] <= now:
            wake_at, _, task = heapq.heappop(self._heap)
            if self._wakes.get(task) == wake_at:
                del self._wakes[task]
                self._ready[task] = None

    def pop(self) -> Task | None:
        """The next task, or None."""
        task = next(iter(self._ready), None)
        if task is not None:
            del self._ready[task]
        return task

    def wake(self, task: Task, wake_at: float | None) -> None:
        """Sets when a key is reconciled again without a change; None: not."""
        if wake_at is None:
            self._wakes.pop(task, None)
        elif self._wakes.get(task) != wake_at:
            self._wakes[task] = wake_at
            self._counter += 1
            heapq.heappush(self._heap, (wake_at, self._counter, task))

    def succeeded(self, task: Task, wake_at: float | None) -> None:
        """Notes that a key was reconciled."""
        self._failures.pop(task, None)
        self.wake(task, wake_at)

    def failed(self, task: Task, now: float) -> float:
        """Notes that a key could not be reconciled, and when it comes again."""
        count = self._failures.get(task, 0)
        self._failures[task] = count + 1
        retry_at = now + min(LAST_RETRY, FIRST_RETRY * float(2 ** min(count, 20)))
        self.wake(task, retry_at)
        return retry_at

    def next_wake(self) -> float | None:
        """When the next key comes by itself (epoch seconds), or None."""
        while self._heap and self._wakes.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
