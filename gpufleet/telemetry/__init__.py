"""Logs, metrics and health: what a service tells of itself."""
