"""Settings of Hypothesis for the properties in this folder."""

from __future__ import annotations

from hypothesis import settings

# No deadline: a machine that is busy with other things is no failure.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
