"""``python -m variants.probe FILE [BESIDE]``: load an ONNX file in this fresh process, run it, print what it took.

Alone the file tells its cold start, and its peak: the kernel's high-water mark, reset after the imports where the
kernel allows it. With BESIDE, another variant of the model, it tells what it holds: what one more variant adds to a
process that serves one already, from which it has the runtime's own share, about 9 MiB at the first session. BESIDE
stays loaded meanwhile: of a session that was closed the allocator keeps some tenths of a MiB, which the next one would
take for nothing, half of what the smallest variants hold.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import psutil

from variants.effort import read_peak, reset_peak
from variants.runtime import blank, open_session

RUNS: Final = 5


def main(path: str, beside: str = "") -> None:
    """Print ``cold_start_s`` and ``peak_bytes`` of the file at ``path``, or its ``loaded_bytes`` beside another."""
    figures = _hold(Path(path), Path(beside)) if beside else _begin(Path(path))
    sys.stdout.write(json.dumps(figures) + "\n")


def _begin(path: Path) -> dict[str, float]:
    before = _resident()
    reset_peak()
    start_s = time.perf_counter()
    session = open_session(path)
    row = {wanted.name: blank(wanted) for wanted in session.get_inputs()}
    session.run(None, row)
    cold_start_s = time.perf_counter() - start_s
    _run(session)
    return {"peak_bytes": max(0, max(read_peak(), _resident()) - before), "cold_start_s": cold_start_s}


def _hold(path: Path, beside: Path) -> dict[str, float]:
    held, before = [], 0
    for file in (beside, path):
        before = _resident()
        # As the gateway loads what it has verified: from memory, without the copy that the session keeps of the file.
        session = open_session(file.read_bytes())
        session._model_bytes = None  # noqa: SLF001 - there is no public way
        _run(session)
        held.append(session)
        _give_back()
    return {"loaded_bytes": max(0, _resident() - before)}


def _run(session: Any) -> None:  # noqa: ANN401 - onnxruntime ships no types
    row = {wanted.name: blank(wanted) for wanted in session.get_inputs()}
    for _ in range(RUNS):
        session.run(None, row)


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def _give_back() -> None:
    """Give freed memory back to the system, as the gateway does after loading."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
    if trim is not None:
        trim(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
