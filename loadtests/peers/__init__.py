"""Servers to compare with, each a file of its own that runs in a process of its own."""
