"""Decisions about requests. Pure: time, load and randomness come in as arguments."""
