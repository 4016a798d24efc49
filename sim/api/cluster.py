"""One simulated cluster as the server sees it: its store, token, faults, watchers and counters."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from sim.api.faults import Faults
from sim.api.store import Store
from sim.api.watching import Hub

# Upper bounds in seconds of the latency histogram.
LATENCY_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(slots=True)
class Counters:
    """What the server counted for one cluster."""

    requests: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    """By verb, resource and HTTP status."""
    faults: int = 0
    latency_sum: float = 0.0
    latency_counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS) + 1))
    """Requests by the first of LATENCY_BOUNDS that they kept, the last those that kept none; watches left out."""

    def observe(self, verb: str, resource: str, code: int, seconds: float) -> None:
        """Count an answered request."""
        self.requests[verb, resource, code] += 1
        if verb == "watch":
            return
        self.latency_sum += seconds
        for index, bound in enumerate(LATENCY_BOUNDS):
            if seconds <= bound:
                self.latency_counts[index] += 1
                return
        self.latency_counts[-1] += 1

    def document(self) -> dict[str, object]:
        """As JSON."""
        return {
            "requests": [
                {"verb": verb, "resource": resource, "code": code, "count": count}
                for (verb, resource, code), count in sorted(self.requests.items())
            ],
            "faults": self.faults,
            "latencySeconds": self.latency_sum,
            "latencyCounts": list(self.latency_counts),
            "latencyBounds": list(LATENCY_BOUNDS),
        }


class Cluster:
    """A store behind the path prefix `/clusters/<name>`, with bearer token `token`."""

    def __init__(self, store: Store, token: str) -> None:
        self.name = store.name
        self.store = store
        self.token = token
        self.prefix = f"/clusters/{store.name}"
        self.faults = Faults()
        self.hub = Hub(store)
        self.counters = Counters()
