"""The pure domain: what a fleet, a workload, a policy and a placement are. No I/O, no clock, no wire format."""
