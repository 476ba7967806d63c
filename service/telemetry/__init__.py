"""Metrics, logs and traces: watches, never decides."""
