"""A kube-scheduler in small: which node each pending pod goes to, and why none will do."""

from sim.model.scheduler.controller import Scheduler

__all__ = ["Scheduler"]
