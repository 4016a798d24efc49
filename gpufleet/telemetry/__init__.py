"""Logs, metrics and health: what a service tells of itself; settings and memory of its process."""
