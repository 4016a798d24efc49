"""Property tests bound how many examples there are, not how long one takes: that says how busy the machine is."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("untimed", settings(deadline=None))
settings.load_profile("untimed")
