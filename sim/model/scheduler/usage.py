"""What the pods of each node take, kept up to date by changes of pods and nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sim.model.api import Json
from sim.model.scheduler.needs import Needs, needs_of
from sim.model.scheduler.nodes import NodeState


class _Held(NamedTuple):
    node: str
    needs: Needs


class Usage:
    """The nodes of a cluster by name, each with the needs of its pods booked; `changed` is told of every change."""

    def __init__(self, changed: Callable[[str], None] = lambda _: None) -> None:
        self.nodes: dict[str, NodeState] = {}
        self._changed = changed
        self._held: dict[str, _Held] = {}
        self._of_node: dict[str, dict[str, Needs]] = {}  # also of nodes that are not known (yet)

    def put(self, uid: str, node: str, pod: Json) -> None:
        """Books a pod on a node; an empty name takes it off where it was."""
        held = self._held.get(uid)
        if held is not None and held.node == node:
            return
        if held is not None:
            self.release(uid)
        if node:
            self.hold(uid, node, needs_of(pod))

    def put_node(self, name: str, node: Json | None) -> bool:
        """Takes over a Node object, None where it is gone; whether that may let more pods in."""
        if node is None:
            self.nodes.pop(name, None)
            return False
        state = self.nodes.get(name)
        if state is None:
            state = self.nodes[name] = NodeState(name)
            for needs in self._of_node.get(name, {}).values():
                state.take(needs)
        if not state.read(node):
            return False
        self._changed(name)
        return True

    def hold(self, uid: str, node: str, needs: Needs) -> None:
        """Books needs on a node."""
        self._held[uid] = _Held(node, needs)
        self._of_node.setdefault(node, {})[uid] = needs
        self._take(node, needs, 1)

    def release(self, uid: str) -> None:
        """Gives back what a pod holds, if anything."""
        held = self._held.pop(uid, None)
        if held is None:
            return
        pods = self._of_node[held.node]
        del pods[uid]
        if not pods:
            del self._of_node[held.node]
        self._take(held.node, held.needs, -1)

    def pods(self, node: str) -> int:
        """How many pods are booked on a node."""
        return len(self._of_node.get(node, ()))

    def _take(self, node: str, needs: Needs, sign: int) -> None:
        state = self.nodes.get(node)
        if state is not None:
            state.take(needs, sign)
            self._changed(node)
