"""Finished steps on disk, so that an interrupted build goes on where it stopped.

One file per step: a line of JSON (digest, and what the step took) and then the payload. A file is written
aside and renamed, so it is whole or absent; should the disk have spoiled it all the same, the digest shows it and the
step is done again. The folder's name carries the build key, so a changed recipe, seed or tool never meets old steps.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from variants.effort import watch_effort
from variants.evidence import Cost
from variants.publication import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Kept:
    """A step's result, and what making it took, now or in an earlier attempt: time, and the process's peak memory."""

    payload: bytes
    took_s: float
    peak_bytes: int

    @property
    def cost(self) -> Cost:
        """What the step adds to the cost of a variant."""
        return Cost(train_s=0.0, build_s=self.took_s, peak_bytes=self.peak_bytes)

    @property
    def training_cost(self) -> Cost:
        """The same of a step that fits weights."""
        return Cost(train_s=self.took_s, build_s=self.took_s, peak_bytes=self.peak_bytes)


class StepCache:
    """Results of steps by name, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get_or_make(self, step: str, make: Callable[[], bytes]) -> Kept:
        """Return the kept result of ``step``, or make and keep it."""
        path = self.folder / f"{step}.step"
        kept = _read(path)
        if kept is None:
            start_s = time.monotonic()
            with watch_effort() as effort:
                payload = make()
            kept = Kept(payload, time.monotonic() - start_s, effort.peak_bytes)
            _write(path, kept)
        return kept


def _read(path: Path) -> Kept | None:
    """Return what the file holds, or ``None`` if it is absent or spoiled."""
    try:
        head, _, payload = path.read_bytes().partition(b"\n")
        header = json.loads(head)
        digest, took = str(header["sha256"]), (float(header["took_s"]), int(header["peak_bytes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Kept(payload, *took) if hashlib.sha256(payload).hexdigest() == digest else None


def _write(path: Path, kept: Kept) -> None:
    digest = hashlib.sha256(kept.payload).hexdigest()
    header = {"sha256": digest, "took_s": kept.took_s, "peak_bytes": kept.peak_bytes}
    write_whole(path, json.dumps(header).encode() + b"\n" + kept.payload)
