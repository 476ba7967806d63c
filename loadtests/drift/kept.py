"""Arrays that took long to compute, one file each, named by what they were computed of.

So a run that was stopped goes on where it stood, and of a model that was built again only the answers of variants whose
files changed are computed anew. Files that a whole run did not ask for are of an older build, and end with it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[Any]


class Kept:
    """The files of one folder; several threads may ask, each for something else."""

    def __init__(self, folder: Path) -> None:
        """Take what is there; the folder is made where it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._asked: set[str] = set()

    def array(self, of: tuple[str, ...], compute: Callable[[], Array]) -> Array:
        """Return what ``compute`` returned for the same words before, or does now."""
        name = f"{_digest('|'.join(of).encode())}.npy"
        self._asked.add(name)
        path = self._folder / name
        if not path.exists():
            array = compute()
            partial = path.with_suffix(f".{threading.get_ident()}.partial.npy")
            np.save(partial, array)
            os.replace(partial, path)  # noqa: PTH105 - whole or not at all, whatever ends the run
        found: Array = np.load(path)
        return found

    def forget_the_rest(self) -> None:
        """Delete what nobody has asked for."""
        for path in self._folder.iterdir():
            if path.name not in self._asked:
                path.unlink()


def digest_of(array: Array) -> str:
    """Return the digest of an array's numbers, type and shape."""
    head = f"{array.dtype}{array.shape}".encode()
    return _digest(head + np.ascontiguousarray(array).tobytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
