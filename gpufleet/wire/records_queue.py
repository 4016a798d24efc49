"""Of a placement's record only what says where in a queue the workload waits: all of a long queue in a short time."""

from __future__ import annotations

import msgspec


class Queued(msgspec.Struct, rename="camel"):
    """A placement's place (`gpufleet.model.queueing.Place`)."""

    workload: str
    queue: str = ""
    priority: int = 0
    arrival: int = 0
    queue_position: int | None = None


_DECODER = msgspec.json.Decoder(Queued, strict=False)


def parse_queued(value: bytes | None) -> Queued | None:
    """Returns the place that a placement's value says; None if it does not wait, or cannot be read."""
    try:
        found = _DECODER.decode(value) if value is not None else None
    except msgspec.DecodeError:
        return None
    return found if found is not None and found.queue_position is not None else None
