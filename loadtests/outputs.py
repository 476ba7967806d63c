"""The files that a command leaves behind: checked before its work begins, and put in place in one step."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from loadtests.h2load import LoadError


def check_output(path: Path | None) -> None:
    """Look whether a file can be written later, so that a long run is not lost to a misspelt folder.

    Raises:
        LoadError: It cannot.
    """
    if path is None:
        return
    folder = path.resolve().parent
    if path.is_dir():
        raise LoadError(f"{path} cannot be written: it is a folder")
    if not folder.is_dir():
        raise LoadError(f"{path} cannot be written: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise LoadError(f"{path} cannot be written: nothing can be made in {folder}")


def write_whole(path: Path, text: str) -> None:
    """Put a text in a file's place in one step, so that a gateway that watches it never reads half of it.

    What is no plain file, such as ``/dev/stdout``, is written to.

    Raises:
        LoadError: It cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.resolve().parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(descriptor, 0o644)
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            Path(name).replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise LoadError(f"{path} cannot be written: {error.strerror or error}") from None
