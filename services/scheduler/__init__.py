"""Scheduler: which cluster gets which workload, and how many of its replicas."""
