"""Latency and memory of variants that are built already, measured again: here, now, without building anything."""
