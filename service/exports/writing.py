"""Folders and files that appear whole or not at all, and take nothing's place unasked."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_FOLDER_MODE: Final = 0o755
_FILE_MODE: Final = 0o644


class ExportError(ValueError):
    """A model cannot be exported as asked; the message says why."""


def write_folders(root: Path, folders: Mapping[str, Mapping[str, bytes]], *, force: bool) -> None:
    """Write folders of files under ``root``, each of them in one step; ``force`` replaces those that are there.

    ``folders`` maps a folder's name to its files by their paths inside. Nothing is written where one may not be.

    Raises:
        ExportError: A folder is there and ``force`` is not given, or the disk refuses.
    """
    there = [name for name in folders if os.path.lexists(root / name)]
    if there and not force:
        raise ExportError(f"{root} has {', '.join(there)} already; give --force to replace, or another --output")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=root) as work:
            for name, files in folders.items():
                _write_files(Path(work) / name, files)
            # Everything is on this disk by now: what follows are renames.
            for name in folders:
                if os.path.lexists(root / name):
                    (root / name).rename(Path(work) / f"old-{name}")
                (Path(work) / name).rename(root / name)
    except OSError as error:
        raise ExportError(f"{root} cannot be written: {error.strerror or error}") from None


def _write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(_FILE_MODE)
