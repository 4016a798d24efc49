"""Pod shapes, node layouts and how the two fit: interned, so that equal ones share every cached answer."""

from __future__ import annotations

from collections.abc import Iterable

from gpufleet.model import devices
from gpufleet.model.cluster import FreeBlock
from gpufleet.model.devices import Devices, Share
from gpufleet.model.resources import Labels, Resources
from gpufleet.model.selectors import Taint, untolerated
from gpufleet.model.workload import PodShape

# Free amounts of one node, by column of its layout.
Free = tuple[int, ...]
# How many pods "as many as you like" is, where nothing bounds them.
UNBOUNDED = 10**6
_MEMO_LIMIT = 50_000
is_gpu = devices.is_gpu


def gpus(amounts: Resources) -> int:
    """Returns the GPUs among some amounts."""
    return sum(amount for name, amount in amounts if is_gpu(name))


class Layout:
    """Which resources the columns of a node class are; one more for each device that is shared."""

    __slots__ = ("_blocks", "_fitters", "devices", "gpu_columns", "id", "names", "resources")

    def __init__(self, number: int, names: tuple[str, ...], shared: Devices | None = None) -> None:
        self.id = number
        self.resources = len(names)
        self.names = names if shared is None else (*names, *(f"device {i}" for i in range(shared.count)))
        self.devices = shared
        self.gpu_columns = tuple(i for i, name in enumerate(names) if is_gpu(name))
        self._fitters: dict[Resources, Fitter] = {}
        self._blocks: dict[tuple[Resources, tuple[int, ...]], Free] = {}

    def fitter(self, requests: Resources) -> Fitter:
        """Returns how some requests fit the layout; equal requests share it."""
        fitter = self._fitters.get(requests)
        if fitter is None:
            made = Fitter(requests, self) if self.devices is None else DeviceFitter(requests, self, self.devices)
            fitter = self._fitters[requests] = made
        return fitter

    def free(self, amounts: Resources) -> Free:
        """Returns amounts as columns; a resource that is not given is 0."""
        known = dict(amounts)
        return tuple(known.get(name, 0) for name in self.names)

    def block(self, block: FreeBlock) -> Free:
        """Returns a free block as columns."""
        key = (block.free, block.gpu_free)
        free = self._blocks.get(key)
        if free is None:
            if len(self._blocks) >= _MEMO_LIMIT:
                self._blocks.clear()
            free = self.free(block.free)
            if self.devices is not None:
                free = (*free[: self.resources], *devices.free_devices(block, self.devices.count))
            self._blocks[key] = free
        return free

    def whole(self, allocatable: Resources) -> Free:
        """Returns an empty node as columns."""
        free = self.free(allocatable)
        return free if self.devices is None else (*free[: self.resources], *(devices.WHOLE,) * self.devices.count)

    def gpus(self, free: Free) -> int:
        """Returns the GPUs in some columns."""
        return sum(free[i] for i in self.gpu_columns)


class Identity:
    """What selectors and tolerations see of a node class: labels, and taints that keep pods away."""

    __slots__ = ("id", "labels", "taints")

    def __init__(self, number: int, labels: Labels, taints: tuple[Taint, ...]) -> None:
        self.id = number
        self.labels = dict(labels)
        self.taints = taints


class Fitter:
    """One shape's requests on one layout."""

    __slots__ = ("columns", "impossible", "memo", "others", "share")

    def __init__(self, requests: Resources, layout: Layout) -> None:
        index = {name: i for i, name in enumerate(layout.names)}
        # A class that does not say how many pods it takes does not bound them; anything else missing is not there.
        self.impossible = any(name not in index and name != "pods" for name, _ in requests)
        self.columns = tuple((index[name], amount) for name, amount in requests if name in index)
        self.others = self.columns  # without those that count devices
        self.share = Share(0, 0)  # of devices that are shared
        self.memo: dict[Free, int] = {}

    def fit(self, free: Free) -> int:
        """Returns how many pods a node with ``free`` takes."""
        count = self.memo.get(free)
        if count is None:
            if len(self.memo) > _MEMO_LIMIT:
                self.memo.clear()
            count = 0 if self.impossible else max(0, min((free[i] // a for i, a in self.columns), default=UNBOUNDED))
            self.memo[free] = count
        return count

    def after(self, free: Free, pods: int) -> Free:
        """Returns what is left of a node once it has taken some pods."""
        left = list(free)
        for i, amount in self.columns:
            left[i] -= amount * pods
        return tuple(left)

    def before(self, free: Free, pods: int, whole: Free) -> Free:
        """Returns what is left of a node, at most ``whole``, once some of its pods are gone."""
        left = list(free)
        for i, amount in self.columns:
            left[i] = min(whole[i], left[i] + amount * pods)
        return tuple(left)


class DeviceFitter(Fitter):
    """One shape's requests on a layout whose devices are shared."""

    __slots__ = ("_layout", "_shared")

    def __init__(self, requests: Resources, layout: Layout, shared: Devices) -> None:
        super().__init__(requests, layout)
        self._layout, self._shared = layout, shared
        self.share = devices.share(requests, shared)
        # The devices say what fits; the sums of them need not be looked at.
        counted = devices.sums(layout.names, shared, ()) if self.share.count else {}
        self.others = tuple((i, amount) for i, amount in self.columns if i not in counted)

    def fit(self, free: Free) -> int:
        """Returns how many pods a node with ``free`` takes."""
        count = self.memo.get(free)
        if count is None:
            if len(self.memo) > _MEMO_LIMIT:
                self.memo.clear()
            count = max(0, min((free[i] // a for i, a in self.others), default=UNBOUNDED))
            if self.share.count:
                count = min(count, devices.room(free[self._layout.resources :], self.share))
            self.memo[free] = count = 0 if self.impossible else count
        return count

    def after(self, free: Free, pods: int) -> Free:
        """Returns what is left of a node once it has taken some pods."""
        if not self.share.count:
            return super().after(free, pods)
        left = list(free)
        for i, amount in self.others:
            left[i] -= amount * pods
        kept = devices.take(free[self._layout.resources :], self.share, pods)
        for i, amount in devices.sums(self._layout.names, self._shared, kept).items():
            left[i] = amount
        return (*left[: self._layout.resources], *kept)

    def before(self, free: Free, pods: int, whole: Free) -> Free:
        """Returns what is left of a node, at most ``whole``, once some of its pods are gone.

        On which devices they are is not known: on the fullest.
        """
        left = super().before(free, pods, whole)
        if not self.share.count:
            return left
        found = list(left[: self._layout.resources])
        kept = devices.give(free[self._layout.resources :], self.share, pods)
        for i, amount in devices.sums(self._layout.names, self._shared, kept).items():
            found[i] = amount
        return (*found, *kept)


class Shape:
    """An interned `PodShape` with what is known about it."""

    __slots__ = ("_admitted", "_fitters", "gpus", "id", "need", "pod", "size")

    def __init__(self, number: int, pod: PodShape, need: int) -> None:
        self.id = number
        self.need = need  # shapes with equal requests have the same, whatever nodes they select
        self.pod = pod
        self.gpus = gpus(pod.requests)
        known = dict(pod.requests)
        # Largest first: GPUs, then memory, then cpu, then everything else.
        self.size = (self.gpus, known.get("memory", 0), known.get("cpu", 0), pod.requests)
        self._fitters: dict[int, Fitter] = {}
        self._admitted: dict[int, bool] = {}

    def fitter(self, layout: Layout) -> Fitter:
        """Returns how the shape fits a layout."""
        fitter = self._fitters.get(layout.id)
        if fitter is None:
            fitter = self._fitters[layout.id] = layout.fitter(self.pod.requests)
        return fitter

    def admitted(self, identity: Identity) -> bool:
        """Returns whether nodes of an identity may run the shape: selector, required affinity, taints."""
        answer = self._admitted.get(identity.id)
        if answer is None:
            answer = self._admitted[identity.id] = (
                selects(self.pod, identity.labels) and untolerated(identity.taints, self.pod.tolerations) is None
            )
        return answer


def selects(pod: PodShape, labels: dict[str, str]) -> bool:
    """Returns whether node labels satisfy the shape's node selector and required affinity."""
    if any(labels.get(key) != value for key, value in pod.node_selector):
        return False
    return not pod.affinity or any(term.matches(labels) for term in pod.affinity)


class Catalog:
    """Every shape, layout and identity of one state, once. Numbers are given in order of first sight."""

    def __init__(self) -> None:
        self._shapes: dict[PodShape, Shape] = {}
        self._last: tuple[PodShape, Shape] | None = None  # asked for several times in a row
        self._needs: dict[Resources, int] = {}
        self._layouts: dict[tuple[tuple[str, ...], Devices | None], Layout] = {}
        self._identities: dict[tuple[Labels, tuple[Taint, ...]], Identity] = {}

    def shape(self, pod: PodShape) -> Shape:
        """Returns the interned shape."""
        if self._last is not None and self._last[0] is pod:
            return self._last[1]
        shape = self._shapes.get(pod)
        if shape is None:
            need = self._needs.setdefault(pod.requests, len(self._needs))
            shape = self._shapes[pod] = Shape(len(self._shapes), pod, need)
        self._last = (pod, shape)
        return shape

    def layout(self, names: Iterable[str], shared: Devices | None = None) -> Layout:
        """Returns the interned layout of some resource names and shared devices."""
        key = (tuple(sorted(names)), shared)
        layout = self._layouts.get(key)
        if layout is None:
            layout = self._layouts[key] = Layout(len(self._layouts), *key)
        return layout

    def identity(self, labels: Labels, taints: tuple[Taint, ...]) -> Identity:
        """Returns the interned identity; when a taint was added does not matter."""
        key = (labels, tuple(Taint(t.key, t.effect, t.value) for t in taints))
        identity = self._identities.get(key)
        if identity is None:
            identity = self._identities[key] = Identity(len(self._identities), key[0], key[1])
        return identity
