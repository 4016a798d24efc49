"""How many examples hypothesis makes where one of them is cheap and hundreds are a matter of taste.

``GPUFLEET_TEST_THOROUGH=1`` runs the full numbers, the default a third of them.
"""

from __future__ import annotations

import os

FEWEST = 50


def examples(full: int) -> int:
    """The number to run of ``full`` examples: never less than 50 unless ``full`` is less."""
    if os.environ.get("GPUFLEET_TEST_THOROUGH", "") not in ("", "0"):
        return full
    return max(min(full, FEWEST), full // 3)
