"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# An example may take long on a busy machine: no test of ours judges by the clock.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
