"""Room for a pod shape by cluster, as columns over every pool of the fleet.

Pools are cells of a grid: row by row the first, second… pool of every cluster. For each kind of requests there is one
column of room per cell, brought up to date from a log of changed cells when it is read; each shape adds a mask of the
cells that admit it. So a decision pays for what has changed since the requests were last asked for, and for one pass
over the grid, which numpy makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from services.scheduler.core.pool import Pool
from services.scheduler.core.shapes import Shape

if TYPE_CHECKING:
    from services.scheduler.core.member import Member

Counts = npt.NDArray[np.int64]
Indexes = npt.NDArray[np.intp]
_COLUMNS = 512


class Column:
    """Room for one shape by member index: on running nodes, and on nodes that could be created.

    ``coming`` is how much of the latter is on nodes that somebody needs anyway; None: nothing. ``pools`` is the room by
    pool of the member (row) and member index: on running nodes, in stock, and coming; None where there is none at all.
    """

    __slots__ = ("coming", "end", "pools", "running", "stock")

    def __init__(
        self,
        end: int,
        running: Counts,
        stock: Counts,
        coming: Counts | None,
        pools: tuple[Counts, Counts | None, Counts | None],
    ) -> None:
        self.end = end
        self.running = running
        self.stock = stock
        self.coming = coming
        self.pools = pools


class _Rooms:
    """Room for some requests by cell, whatever nodes they select."""

    __slots__ = ("coming", "position", "running", "stock")

    def __init__(self, size: int) -> None:
        self.running: Counts = np.zeros(size, np.int64)
        self.stock: Counts = np.zeros(size, np.int64)
        self.coming: Counts | None = None  # as long as there never was any
        self.position = -1


class _Mask:
    """1 for the cells that admit a shape."""

    __slots__ = ("admits", "position")

    def __init__(self, size: int) -> None:
        self.admits: Counts = np.zeros(size, np.int64)
        self.position = -1


class _Log:
    """Numbers of changed cells. Whoever reads it remembers how far; the oldest half is dropped when it grows long."""

    __slots__ = ("_cells", "_start")

    def __init__(self) -> None:
        self._cells: list[int] = []
        self._start = 0

    @property
    def end(self) -> int:
        return self._start + len(self._cells)

    def add(self, cell: int, size: int) -> None:
        self._cells.append(cell)
        if len(self._cells) > 4 * size + 4096:
            drop = len(self._cells) // 2
            del self._cells[:drop]
            self._start += drop

    def extend(self, cells: Sequence[int], size: int) -> None:
        """Adds several cells."""
        self._cells += cells[1:]
        if cells:
            self.add(cells[0], size)

    def since(self, position: int) -> list[int] | None:
        """Returns what has changed since a position, or None if that is too long ago."""
        return None if position < self._start else self._cells[position - self._start :]


class Grid:
    """Every pool of the fleet by cell."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._width = 0
        self._depth = 0
        self._cells: list[Pool | None] = []
        self._outgrown = False
        self._changed = _Log()
        self._replaced = _Log()
        self._rooms: dict[int, _Rooms] = {}
        self._masks: dict[int, _Mask] = {}
        self._columns: dict[int, Column] = {}
        self._indebted: set[int] = set()
        self._elastic = False  # whether some pool ever had stock

    def replaced(self, member: Member) -> None:
        """Notes that a member's pools are others than before."""
        if member.index >= self._width or len(member.pools) > self._depth:
            self._outgrown = True
        if not self._outgrown:
            self._put(member)

    def changed(self, pool: Pool) -> None:
        """Notes that the room of a pool may be another than before."""
        if not self._outgrown:
            self._changed.add(pool.cell, len(self._cells))

    def moved(self, shape: Shape, pools: Sequence[Pool], counts: Sequence[int], sign: int) -> None:
        """Notes that each of some pools has room for so many pods of a shape more (``sign`` -1: less).

        Room for equal requests is corrected if it is known; any other is looked at again when it is asked for.
        """
        if self._outgrown or not pools:
            return
        cells = [pool.cell for pool in pools]
        rooms = self._rooms.get(shape.need)
        known = rooms is not None and rooms.position == self._changed.end
        self._changed.extend(cells, len(self._cells))
        if rooms is not None and known:
            rooms.running[np.array(cells)] += counts if sign > 0 else np.negative(counts)
            rooms.position = self._changed.end

    def column(self, shape: Shape) -> Column:
        """Returns room for a shape by member index, up to date. The arrays are not to be changed."""
        if self._outgrown or len(self._members) > self._width:
            self._lay_out()
        rooms = self._up_to_date(shape)
        known = self._columns.get(shape.id)
        if known is not None and known.end == rooms.position:
            return known
        mask = self._mask(shape)
        across = (self._depth, self._width)
        on_nodes = (rooms.running * mask).reshape(across)
        in_stock = (rooms.stock * mask).reshape(across) if self._elastic else None
        on_the_way = None if rooms.coming is None else (rooms.coming * mask).reshape(across)
        running = np.add.reduce(on_nodes, axis=0)
        stock = np.zeros(self._width, np.int64) if in_stock is None else np.add.reduce(in_stock, axis=0)
        coming = None if on_the_way is None else np.add.reduce(on_the_way, axis=0)
        for index in self._indebted:
            running[index] = stock[index] = 0
            if coming is not None:
                coming[index] = 0
        if len(self._columns) >= _COLUMNS:
            self._columns.clear()
        pools = (on_nodes, in_stock, on_the_way)
        column = self._columns[shape.id] = Column(rooms.position, running, stock, coming, pools)
        return column

    def _put(self, member: Member) -> None:
        for row in range(self._depth):
            cell = row * self._width + member.index
            before = self._cells[cell]
            pool = member.pools[row] if row < len(member.pools) else None
            if pool is None and before is None:
                continue
            self._elastic = self._elastic or (pool is not None and pool.elastic)
            self._cells[cell] = pool
            if pool is not None:
                pool.cell = cell
            self._changed.add(cell, len(self._cells))
            if pool is None or before is None or pool.identity is not before.identity:
                self._replaced.add(cell, len(self._cells))

    def _lay_out(self) -> None:
        """Gives every pool its cell anew, with room to grow."""
        count = len(self._members)
        self._width = count + count // 8 + 1
        self._depth = max((len(member.pools) for member in self._members), default=1) or 1
        self._cells = [None] * (self._width * self._depth)
        self._changed, self._replaced = _Log(), _Log()
        self._rooms, self._masks, self._columns = {}, {}, {}
        self._elastic = False
        self._outgrown = False
        for member in self._members:
            self._put(member)

    def _up_to_date(self, shape: Shape) -> _Rooms:
        rooms = self._rooms.get(shape.need)
        if rooms is None:
            if len(self._rooms) >= _COLUMNS:
                del self._rooms[next(iter(self._rooms))]
            rooms = self._rooms[shape.need] = _Rooms(len(self._cells))
        end = self._changed.end
        if rooms.position == end:
            return rooms
        changed = self._changed.since(rooms.position)
        layout, fitter = None, None
        for cell in set(changed) if changed is not None else range(len(self._cells)):
            pool = self._cells[cell]
            if pool is None:
                rooms.running[cell] = rooms.stock[cell] = 0
                if rooms.coming is not None:
                    rooms.coming[cell] = 0
                continue
            member = self._members[cell % self._width]
            if member.unsettled:
                member.settle()
            if member.debt:
                self._indebted.add(member.index)
            elif self._indebted:
                self._indebted.discard(member.index)
            if fitter is None or pool.layout is not layout:
                layout = pool.layout
                fitter = shape.fitter(layout)
            rooms.running[cell], stock = pool.rooms(fitter)
            if self._elastic:
                rooms.stock[cell] = stock
                if rooms.coming is None and pool.stock.coming:
                    rooms.coming = np.zeros(len(self._cells), np.int64)
                if rooms.coming is not None:
                    rooms.coming[cell] = pool.room_coming(fitter)
        # Settling changes nothing that was not logged when it became necessary; the log does not grow meanwhile.
        rooms.position = end
        return rooms

    def _mask(self, shape: Shape) -> Counts:
        mask = self._masks.get(shape.id)
        if mask is None:
            if len(self._masks) >= _COLUMNS:
                del self._masks[next(iter(self._masks))]
            mask = self._masks[shape.id] = _Mask(len(self._cells))
        end = self._replaced.end
        if mask.position != end:
            replaced = self._replaced.since(mask.position)
            for cell in replaced if replaced is not None else range(len(self._cells)):
                pool = self._cells[cell]
                mask.admits[cell] = pool is not None and shape.admitted(pool.identity)
            mask.position = end
        return mask.admits
