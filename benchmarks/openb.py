"""The openb trace, and nodes that take its tasks: what `quality` measures on.

A node's state is its free cpu, memory and thousandths free by device, least first. What a rule says of a node depends
on its state alone, so it is computed once per state, for all shapes of tasks at once.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
State = tuple[int, int, tuple[int, ...]]  # free cpu (millicores), memory (MiB), thousandths by device
NOT_HERE = -1

_DATA = Path(__file__).parent / "data" / "openb"
_POPULAR = 0.95  # the tasks that are typical, by popularity


def _rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(gzip.decompress((_DATA / name).read_bytes()).decode())))


@dataclass(frozen=True)
class Trace:
    """Nodes by index, and shapes of tasks by index: cpu, memory, devices, and thousandths of each."""

    cpu: Ints
    memory: Ints
    gpus: Ints
    models: tuple[str, ...]
    task_cpu: Ints
    task_memory: Ints
    count: Ints
    thousandths: Ints
    tasks: Ints  # the shape of each task of the list

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return len(self.cpu)

    @property
    def asked(self) -> Ints:
        """Thousandths of GPUs by shape."""
        return self.count * self.thousandths

    @property
    def capacity(self) -> int:
        """Thousandths of GPUs of all nodes."""
        return int(self.gpus.sum()) * 1000

    def empty(self) -> list[State]:
        """Returns the states of empty nodes."""
        return [(int(c), int(m), (1000,) * int(g)) for c, m, g in zip(self.cpu, self.memory, self.gpus, strict=True)]


@cache
def trace() -> Trace:
    """Returns the trace."""
    nodes, tasks = _rows("nodes.csv.gz"), _rows("tasks.csv.gz")
    shapes: dict[tuple[int, int, int, int], int] = {}
    kinds = []
    for task in tasks:
        count = int(task["num_gpu"])
        shape = (int(task["cpu_milli"]), int(task["memory_mib"]), count, int(task["gpu_milli"]) if count else 0)
        kinds.append(shapes.setdefault(shape, len(shapes)))
    task_cpu, task_memory, count_, thousandths = np.array(list(shapes), np.int64).T
    return Trace(
        np.array([int(n["cpu_milli"]) for n in nodes]),
        np.array([int(n["memory_mib"]) for n in nodes]),
        np.array([int(n["gpu"]) for n in nodes]),
        tuple(n["model"] for n in nodes),
        task_cpu,
        task_memory,
        count_,
        thousandths,
        np.array(kinds),
    )


@cache
def sequence(seed: int) -> tuple[Ints, Ints]:
    """Returns the shapes that arrive, until they ask for all GPUs, and the rank of each node among equals."""
    known = _sequences()[str(seed)]
    return trace().tasks[np.array(known["order"])], np.array(known["node_rank"])


@cache
def _sequences() -> dict[str, dict[str, list[int]]]:
    found: dict[str, dict[str, list[int]]] = json.loads(gzip.decompress((_DATA / "sequences.json.gz").read_bytes()))
    return found


def fits(state: State) -> npt.NDArray[np.bool_]:
    """Returns by shape whether it fits a node."""
    t = trace()
    cpu, memory, devices = state
    enough = (np.array(devices)[None, :] >= t.thousandths[:, None]).sum(1) >= t.count
    found: npt.NDArray[np.bool_] = (t.task_cpu <= cpu) & (t.task_memory <= memory) & ((t.count == 0) | enough)
    return found


@cache
def took(devices: tuple[int, ...], count: int, thousandths: int) -> tuple[int, ...]:
    """Returns what is left of devices once the fullest that have room were taken from."""
    left = list(devices)
    for index, free in enumerate(devices):
        if count and free >= thousandths:
            left[index] -= thousandths
            count -= 1
    return tuple(sorted(left))


def placed(state: State, shape: int, devices: tuple[int, ...] | None = None) -> State:
    """Returns a node's state once it has taken a task, on the fullest devices or as given."""
    t = trace()
    if devices is None:
        devices = took(state[2], int(t.count[shape]), int(t.thousandths[shape])) if t.count[shape] else state[2]
    return (state[0] - int(t.task_cpu[shape]), state[1] - int(t.task_memory[shape]), devices)


class Descent:
    """Fragmentation gradient descent (Weng et al., USENIX ATC 2023): what the typical tasks could not use."""

    def __init__(self) -> None:
        t = trace()
        counts = Counter((int(t.task_cpu[s]), int(t.thousandths[s]), int(t.count[s])) for s in t.tasks)
        ranked = sorted(counts.items(), key=lambda item: (item[1], item[0]), reverse=True)
        typical: list[tuple[tuple[int, int, int], int]] = []
        seen = 0
        for shape, count in ranked:
            if seen >= _POPULAR * len(t.tasks):
                break
            typical.append((shape, count))
            seen += count
        typical.sort()
        self._cpu = np.array([shape[0] for shape, _ in typical])
        self._part = np.array([shape[1] for shape, _ in typical])
        self._count = np.array([shape[2] for shape, _ in typical])
        self._often = np.array([count for _, count in typical]) / seen
        self._usable: dict[tuple[int, ...], Floats] = {}
        kinds: dict[tuple[int, int], list[int]] = {}
        for index in range(len(t.count)):
            kinds.setdefault((int(t.count[index]), int(t.thousandths[index])), []).append(index)
        self._kinds = [(count, part, np.array(shapes)) for (count, part), shapes in kinds.items()]
        self._known: dict[State, tuple[Ints, list[dict[int, tuple[int, ...]]]]] = {}

    def _useful(self, devices: tuple[int, ...]) -> Floats:
        """Returns GPUs that typical tasks could use, summed up over those that need the least cpu."""
        found = self._usable.get(devices)
        if found is None:
            free = np.array(devices)
            enough = ((free[None, :] >= self._part[:, None]).sum(1) >= self._count) & (self._count > 0)
            used = np.where(free[None, :] >= self._part[:, None], free[None, :], 0).sum(1)
            found = np.concatenate([[0.0], np.cumsum(self._often * np.where(enough, used, 0))])
            self._usable[devices] = found
        return found

    def fragments(self, cpu: Ints | int, devices: tuple[int, ...]) -> Floats:
        """Returns the GPUs (thousandths) of a node that a random typical task could not use."""
        return sum(devices) - self._useful(devices)[np.searchsorted(self._cpu, cpu, side="right")]

    def scores(self, state: State) -> Ints:
        """Returns by shape how good a node is, 0 to 100 as published, or NOT_HERE."""
        return self._of(state)[0]

    def devices(self, state: State, shape: int) -> tuple[int, ...] | None:
        """Returns the devices that a task leaves, where the rule chooses among them."""
        return self._of(state)[1][0].get(shape)

    def _of(self, state: State) -> tuple[Ints, list[dict[int, tuple[int, ...]]]]:
        known = self._known.get(state)
        if known is not None:
            return known
        t = trace()
        cpu, _, devices = state
        now = float(self.fragments(cpu, devices))
        gain = np.full(len(t.count), -np.inf)
        chosen: dict[int, tuple[int, ...]] = {}
        for count, part, shapes in self._kinds:
            for left in _choices(devices, count, part):
                better = now - self.fragments(cpu - t.task_cpu[shapes], left)
                for index in np.flatnonzero(better > gain[shapes]):
                    chosen[int(shapes[index])] = left
                gain[shapes] = np.maximum(gain[shapes], better)
        scores = (100 / (1 + np.exp(-np.clip(gain, -1e5, 1e5) / 1000))).astype(np.int64)
        found = self._known[state] = (np.where(fits(state), scores, NOT_HERE), [chosen])
        return found


@cache
def _choices(devices: tuple[int, ...], count: int, part: int) -> Sequence[tuple[int, ...]]:
    if not count:
        return [devices]
    if sum(free >= part for free in devices) < count:
        return []
    if count > 1 or part == 1000:
        return [took(devices, count, part)]
    found = []
    for index, free in enumerate(devices):
        if free >= part and free not in devices[:index]:
            found.append(tuple(sorted((*devices[:index], free - part, *devices[index + 1 :]))))
    return found


@cache
def descent() -> Descent:
    """Returns the rule with the typical tasks of the list."""
    return Descent()


def best_fit(state: State) -> Ints:
    """Returns by shape how little cpu and GPU a node has left, 0 to 100, or NOT_HERE."""
    t = trace()
    left = (state[0] - t.task_cpu) / 128_000 * 0.5 + (sum(state[2]) - t.asked) / 8_000 * 0.5
    return np.where(fits(state), ((1 - left) * 100).astype(np.int64), NOT_HERE)


def packing(state: State) -> Ints:
    """Returns the published packing score: shared GPUs first, then used nodes, then empty ones."""
    t = trace()
    devices = state[2]
    whole = devices.count(1000)
    scores = np.zeros(len(t.count), np.int64)
    for count, part in {(int(c), int(p)) for c, p in zip(t.count, t.thousandths, strict=True) if c}:
        taken = [free for free in devices if free >= part][:count]
        if whole == len(devices):
            score = max(33 - whole, whole)
        elif taken.count(1000):
            score = max(50 - taken.count(1000), 33)
        else:
            score = max(100 - sum(free // 10 for free in taken) // 10, 50)
        scores[(t.count == count) & (t.thousandths == part)] = score
    return np.where(fits(state), scores, NOT_HERE)


def anywhere(state: State) -> Ints:
    """Returns 0 where a shape fits."""
    return np.where(fits(state), 0, NOT_HERE)


def remembered(rule: Callable[[State], Ints]) -> Callable[[State], Ints]:
    """Returns a rule that is computed once per state."""
    return cache(rule)
