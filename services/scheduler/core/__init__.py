"""The scheduler's pure core: `decide(state, events, now) -> Outputs`. No clock, no randomness, no I/O.

A decision goes through small modules, each a step: `select` (which policy), `filter` (which clusters), `room` and
`capacity` (how many fit, less what `reserve` holds), `divide` and `gang` (how many where), `slots` (on which nodes),
`explain` (why), `commit` and `assign` (what is written). `place` lists the steps; a new rule is a new step there.
`settle` says what a workload is due for, `queue` who is next and what wakes whom, `tables`, `records` and `reconcile`
keep the state.
"""

from services.scheduler.core.decide import decide
from services.scheduler.core.state import State

__all__ = ["State", "decide"]
