"""The assignments of one workload by cluster: as columns while nothing but their cluster tells them apart.

Most are written once, all together, and not looked at one by one before they are removed. So they are made of the
columns where somebody asks for one; from the first change on each is kept by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

from gpufleet.model.placement import Assignment, AssignmentColumns, Version


class Assigned(MutableMapping[str, Assignment]):
    """Assignments by cluster. ``columns`` are all of them, while they are kept so; reading changes nothing."""

    __slots__ = ("_single", "columns")

    def __init__(self) -> None:
        self.columns: AssignmentColumns | None = None
        self._single: dict[str, Assignment] = {}

    def fill(self, columns: AssignmentColumns) -> None:
        """Puts the first assignments of a workload, all at once."""
        if self:
            raise ValueError("there are assignments already")
        self.columns = columns

    def versions(self) -> list[Version]:
        """Returns the versions of all of them."""
        if self.columns is None:
            return [a.version for a in self._single.values()]
        return [self.columns.common.version] if self.columns.clusters else []

    def common_to(self, clusters: tuple[str, ...]) -> Assignment | None:
        """Returns what the assignments have in common if they are columns, and of just these clusters."""
        columns = self.columns
        return columns.common if columns is not None and columns.clusters == clusters else None

    def stamp(self) -> AssignmentColumns | list[Assignment]:
        """Returns all of them, to tell later whether they are still the same."""
        return list(self._single.values()) if self.columns is None else self.columns

    def _apart(self) -> dict[str, Assignment]:
        """Keeps each by itself from now on."""
        if self.columns is not None:
            self._single = {assignment.cluster: assignment for assignment in self.columns}
            self.columns = None
        return self._single

    def __getitem__(self, cluster: str) -> Assignment:
        if self.columns is None:
            return self._single[cluster]
        place = self.columns.place(cluster)
        if place is None:
            raise KeyError(cluster)
        return self.columns.at(place)

    def __setitem__(self, cluster: str, assignment: Assignment) -> None:
        self._apart()[cluster] = assignment

    def __delitem__(self, cluster: str) -> None:
        del self._apart()[cluster]

    def __iter__(self) -> Iterator[str]:
        return iter(self._single if self.columns is None else self.columns.clusters)

    def __len__(self) -> int:
        return len(self._single) if self.columns is None else len(self.columns.clusters)

    def __contains__(self, cluster: object) -> bool:
        if self.columns is None:
            return cluster in self._single
        return isinstance(cluster, str) and self.columns.place(cluster) is not None
