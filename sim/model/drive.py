"""Runs controllers on the objects of a simulated cluster in this process, in whatever time the caller says it is.

`settle(now)` does everything that is due; `next_wake()` says when to call it again. The order of work depends on the
order of changes alone, so the same changes at the same times give the same objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from sim.api.changelog import Change
from sim.api.errors import ApiError
from sim.api.patches import merge_patch
from sim.api.resources import Resource
from sim.api.store import Store
from sim.model.api import Bind, Controller, Create, Delete, Event, Json, Kind, Ref, Write, ref_of
from sim.model.queue import Task, TaskQueue

LIVELOCK = 20_000
OnError = Callable[[str, Write | Ref, Exception], None]


class Livelock(RuntimeError):
    """A controller asks for changes without end at one instant."""


class NotServed(ApiError):
    """A write of a kind that the cluster does not serve."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(404, "NotFound", f"the server does not serve {kind[1]} in {kind[0]}")


class StoreView:
    """The `sim.model.api.View` of a Store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._resources: dict[Kind, Resource | None] = {}
        self._revision = -1

    def resource(self, api_version: str, kind: str) -> Resource | None:
        """The resource of a kind, or None if it is not served now."""
        if self._revision != self._store.registry.revision:
            self._revision = self._store.registry.revision
            self._resources.clear()
        wanted = (api_version, kind)
        if wanted not in self._resources:
            self._resources[wanted] = self._store.registry.by_kind(api_version, kind)
        return self._resources[wanted]

    def get(self, api_version: str, kind: str, namespace: str, name: str) -> Json | None:
        """One object, or None."""
        resource = self.resource(api_version, kind)
        return None if resource is None else self._store.find(resource, namespace, name)

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Json]:
        """All objects of a kind, of one namespace if given, with all of the labels if given."""
        resource = self.resource(api_version, kind)
        if resource is None:
            return []
        found = self._store.list(resource, namespace)
        if labels:
            found = [obj for obj in found if labels.items() <= (obj["metadata"].get("labels") or {}).items()]
        return found

    def owned_by(self, uid: str, api_version: str, kind: str) -> Sequence[Json]:
        """Objects of a kind with an owner reference to `uid`."""
        resource = self.resource(api_version, kind)
        return [] if resource is None else sorted(self._store.owned_by(uid, resource), key=ref_of)

    def pods_on(self, node: str) -> Sequence[Json]:
        """Pods bound to a node."""
        return self._store.pods_on_node(node)


class Drive:
    """The controllers of one cluster, at work on its Store.

    Objects that are in the store already count as just added. `on_work` is called when a change from outside makes
    work. `on_error` is called with the controller's name, what it was about, and the error, when a write was refused
    (it is tried again later) or an object is such that the controller cannot read it (it is left until it changes).
    Neither may call the drive.
    """

    def __init__(
        self,
        store: Store,
        controllers: Sequence[Controller],
        *,
        on_work: Callable[[], None] | None = None,
        on_error: OnError | None = None,
    ) -> None:
        self.store = store
        self.view = StoreView(store)
        self.on_work = on_work
        self.on_error = on_error
        self.reconciles = 0
        self.errors = 0
        self._queue = TaskQueue(controllers, self._report)
        self._working = False
        for kind in self._queue.kinds:
            for obj in self.view.list(*kind):
                self._queue.observe(self.view, Event(kind, obj, None))
        store.subscribe(self._changed)

    def close(self) -> None:
        """Takes the controllers off the store."""
        self.store.unsubscribe(self._changed)

    @property
    def busy(self) -> bool:
        """Whether there is work that needs no waiting."""
        return bool(self._queue)

    def next_wake(self) -> float | None:
        """When something happens by itself (epoch seconds), or None. Work that is there already does not count."""
        return self._queue.next_wake()

    def settle(self, now: float, limit: int | None = None) -> bool:
        """Does what is due at `now`; whether all of it is done. `limit` bounds the number of reconciles.

        Raises Livelock if one key is reconciled without end.
        """
        self._queue.due(now)
        seen: Counter[Task] = Counter()
        left = limit
        self._working = True
        try:
            while left is None or left > 0:
                task = self._queue.pop()
                if task is None:
                    return True
                seen[task] += 1
                if seen[task] > LIVELOCK:
                    name = self._queue.controllers[task.controller].name
                    raise Livelock(f"cluster {self.store.name}: {name} does not come to an end with {task.key}")
                self._reconcile(task, now)
                left = None if left is None else left - 1
        finally:
            self._working = False
        return not self._queue

    def apply(self, writes: Iterable[Write], now: float) -> None:
        """Does writes from outside the controllers, in order. Raises ApiError at the first that is refused."""
        for write in writes:
            self._write(write, now)

    def _changed(self, change: Change) -> None:
        obj = None if change.type == "DELETED" else change.obj
        old = change.obj if change.type == "DELETED" else change.old
        event = Event((change.obj["apiVersion"], change.obj["kind"]), obj, old)
        if self._queue.observe(self.view, event) and not self._working and self.on_work is not None:
            self.on_work()

    def _reconcile(self, task: Task, now: float) -> None:
        self.reconciles += 1
        controller = self._queue.controllers[task.controller]
        try:
            result = controller.reconcile(self.view, task.key, now)
        except Exception as error:
            self._report(controller.name, task.key, error)
            self._queue.succeeded(task, None)
            return
        for write in result.writes:
            try:
                self._write(write, now)
            except ApiError as error:
                self._report(controller.name, write, error)
                self._queue.failed(task, now)
                return
        self._queue.succeeded(task, result.wake_at)

    def _report(self, controller: str, about: Write | Ref, error: Exception) -> None:
        self.errors += 1
        if self.on_error is not None:
            self.on_error(controller, about, error)

    def _resource(self, api_version: str, kind: str) -> Resource:
        resource = self.view.resource(api_version, kind)
        if resource is None:
            raise NotServed((api_version, kind))
        return resource

    def _write(self, write: Write, now: float) -> None:
        store = self.store
        if isinstance(write, Create):
            store.create(self._resource(write.obj["apiVersion"], write.obj["kind"]), write.obj, now=now)
            return
        if isinstance(write, Bind):
            store.bind(write.namespace, write.name, write.node, now=now)
            return
        ref = write.ref
        resource = self._resource(ref.api_version, ref.kind)
        old = store.find(resource, ref.namespace, ref.name)
        if old is None or (write.uid and old["metadata"]["uid"] != write.uid):
            return  # what was meant is gone
        if isinstance(write, Delete):
            store.delete(
                resource,
                ref.namespace,
                ref.name,
                now=now,
                grace_period=write.grace_seconds,
                propagation=write.propagation,
            )
            return
        patch = write.patch
        if write.resource_version:
            metadata = {**patch.get("metadata", {}), "resourceVersion": write.resource_version}
            patch = {**patch, "metadata": metadata}
        # A CustomResourceDefinition without the status subresource has its status in the object itself.
        subresource = write.subresource if write.subresource in resource.subresources else ""
        if subresource == "status" and not write.resource_version:
            # The short way for what controllers write most: no validation of what is there already.
            status = merge_patch(old.get("status") or {}, patch["status"])
            store.update_status(resource, ref.namespace, ref.name, status, now=now)
            return
        store.patch(resource, ref.namespace, ref.name, patch, now=now, subresource=subresource)
