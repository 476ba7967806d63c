"""Load tests and benchmarks: black boxes over the wire."""
