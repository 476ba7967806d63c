"""``python -m variants.probe FILE``: load one ONNX file in this fresh process, run it, print what it took as JSON.

Memory is what one more variant adds to a process that serves others: the runtime's own share, about 9 MiB at the first
session, and what the allocator keeps of the loading, are left out. So the file is loaded twice: the first time gives
cold start and peak, the second one, after everything freed was given back, what it holds. The peak is the kernel's
high-water mark, reset after the imports where the kernel allows it.
"""

from __future__ import annotations

import ctypes
import json
import resource
import sys
import time
from pathlib import Path
from typing import Final

import psutil

from variants.runtime import blank, open_session

RUNS: Final = 5


def main(path: str) -> None:
    """Print ``loaded_bytes``, ``peak_bytes`` and ``cold_start_s`` of the file at ``path``."""
    process = psutil.Process()
    before = process.memory_info().rss
    _reset_peak()
    start_s = time.perf_counter()
    session = open_session(Path(path))
    row = {wanted.name: blank(wanted) for wanted in session.get_inputs()}
    session.run(None, row)
    cold_start_s = time.perf_counter() - start_s
    for _ in range(RUNS):
        session.run(None, row)
    peak = max(_peak(), process.memory_info().rss)
    del session
    _give_back()
    runtime = process.memory_info().rss
    session = open_session(Path(path))
    for _ in range(RUNS):
        session.run(None, row)
    _give_back()
    figures = {
        "loaded_bytes": max(0, process.memory_info().rss - runtime),
        "peak_bytes": max(0, peak - before),
        "cold_start_s": cold_start_s,
    }
    sys.stdout.write(json.dumps(figures) + "\n")


def _give_back() -> None:
    """Give freed memory back to the system, as the gateway does after loading."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
    if trim is not None:
        trim(0)


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return  # the mark then includes the imports, which is an overestimate and never a flattering one


def _peak() -> int:
    """Return the high-water mark of resident memory, in bytes."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main(sys.argv[1])
