"""Drift while the gateway serves: what is looked at, kept and compared, and what is done about it."""
