"""The scheduler's pure core: `decide(state, events, now) -> Outputs`. No clock, no randomness, no I/O.

A decision goes through small modules, each a step: `select` (which policy), `filter` (which clusters), `room`,
`member` and `fleet` (how many fit, less what `reserve` holds; `booking` takes and gives back the room of a whole
decision), `divide_replicas` and `divide_whole` (how many where, with the arithmetic of `divide` and `gang`), `slots`
(on which nodes), `refusals` and `explain` (why not elsewhere), `verdict` (what is said of the whole), `commit` and
`assign` (what is written). `place` lists the steps; a new rule is a new step there. `settle` says what a workload is
due for: `draining` takes copies back, `standing` tells what may stay as it is, `waiting` what waits and when it is
looked at again. `witness` notes what a decision sees, `testimony` puts it into words (`evidence`), `replay` makes it
again, and `compare` says whether it is the same. `queue` says who is next and what wakes whom; `tables`, `rules`,
`records` and `reconcile` keep the state.
"""

from services.scheduler.core.decide import decide
from services.scheduler.core.state import State

__all__ = ["State", "decide"]
