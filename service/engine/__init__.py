"""The work: disk, memory, lanes, queues. The only layer that waits."""
