"""The notebook: every candidate's figures so far, in memory and, if asked for, in a file from which a search goes on.

One JSON object a line: first the question's digest, then one line for each simulation. The search is deterministic, so
a search that finds its figures in the notebook takes the same way at once, and goes on where it was cut off. A line
that a crash cut short is dropped.
"""

from __future__ import annotations

import json
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from loadtests.h2load import LoadError
from loadtests.tuner.score import Figures

if TYPE_CHECKING:
    from pathlib import Path

Key = tuple[int, str]
"""The stride of the slice, and the candidate's thresholds as JSON."""


class Notebook:
    """Figures by slice and candidate."""

    def __init__(self, digest: str, path: Path | None = None) -> None:
        """Read the file if it is there; begin it if not.

        Raises:
            LoadError: The file belongs to another question, or cannot be used.
        """
        self._path = path
        self._known: dict[Key, tuple[Figures, ...]] = {}
        self.fault = ""
        """Why the file is not written any more: the search goes on without."""
        if path is None:
            return
        try:
            if path.exists() and path.stat().st_size:
                self._read(path, digest)
            else:
                path.write_text(json.dumps({"question": digest}) + "\n", encoding="utf-8")
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise LoadError(f"state {path} cannot be used: {error}") from None

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: Key) -> tuple[Figures, ...] | None:
        """Return what is known."""
        return self._known.get(key)

    def put(self, key: Key, found: tuple[Figures, ...]) -> None:
        """Keep figures; a disk that fails ends the file, not the search."""
        self._known[key] = found
        if self._path is None or self.fault:
            return
        line = {"stride": key[0], "candidate": key[1], "figures": [astuple(item) for item in found]}
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            self.fault = error.strerror or str(error)

    def _read(self, path: Path, digest: str) -> None:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        if json.loads(lines[0])["question"] != digest:
            raise ValueError("it is of another model, trace, limit or seed; name another file, or remove it")
        whole = [line for line in lines if line.endswith("\n")]
        if len(whole) < len(lines):
            path.write_text("".join(whole), encoding="utf-8")
        for line in whole[1:]:
            item: dict[str, Any] = json.loads(line)
            key = (int(item["stride"]), str(item["candidate"]))
            self._known[key] = tuple(Figures(*values) for values in item["figures"])
