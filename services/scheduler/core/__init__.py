"""The scheduler's pure core: `decide(state, events, now) -> Outputs`. No clock, no randomness, no I/O."""
