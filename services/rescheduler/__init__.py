"""Rescheduler: what has to move, and how often it may."""
