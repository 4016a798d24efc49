"""An index of what travels along: by the workload that needs it, and by what is needed."""

from __future__ import annotations

from collections.abc import Mapping


class RequiredBy:
    """``needs`` gives for each workload what it needs, and in which clusters."""

    def __init__(self) -> None:
        self.needs: dict[str, tuple[frozenset[str], tuple[str, ...]]] = {}
        self._by: dict[str, dict[str, tuple[str, ...]]] = {}

    def put(self, workload: str, needs: frozenset[str], clusters: tuple[str, ...]) -> None:
        """Sets what a workload needs where; nothing, if either is empty."""
        for key in self.needs.pop(workload, (frozenset(), ()))[0]:
            known = self._by[key]
            del known[workload]
            if not known:
                del self._by[key]
        if needs and clusters:
            self.needs[workload] = (needs, clusters)
            for key in needs:
                self._by.setdefault(key, {})[workload] = clusters

    def of(self, key: str) -> Mapping[str, tuple[str, ...]]:
        """Returns the clusters of each workload that needs an object."""
        return self._by.get(key, {})
