"""The repository on disk, written so that a reader never sees half of anything.

::

    <repository>/<model>/<version>/manifest.json, <variant>.onnx (unless rejected), report.html, pareto.png
    <repository>/.work/<model>-<key>/            steps of an unfinished build, and the version being put together
    <repository>/.work/<model>.lock              held while a build of the model runs

A version is put together in ``.work``, flushed to disk, and renamed to its place in one operation: whatever kills
the build, the version is there entirely or not at all. Versions are 1, 2, ...; a reader takes the highest. The lock
is the kernel's (``flock``), so a killed build leaves none behind.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

from variants.errors import BuildBusy, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Work = Literal["build", "search"]
WORK: Final = ".work"
VERSION: Final = re.compile(r"[1-9][0-9]{0,8}")
REFUSALS: Final = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EIO,
)  # fmt: skip


def work_folder(repository: Path, model: str, build_key: str) -> Path:
    """Return where an unfinished build keeps its steps."""
    return repository / WORK / f"{model}-{build_key[:16]}"


def versions(repository: Path, model: str) -> list[int]:
    """Return the published versions, ascending; folders with other names are not versions."""
    folder = repository / model
    if not folder.is_dir():
        return []
    names = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    return sorted(int(name) for name in names if VERSION.fullmatch(name))


@contextmanager
def model_lock(repository: Path, model: str, work: Work = "build") -> Iterator[None]:
    """Hold the model's lock for one kind of work.

    Raises:
        BuildBusy: Another process holds it.
        OutputError: The repository cannot be written.
    """
    path = repository / WORK / (f"{model}.lock" if work == "build" else f"{model}-{work}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w", encoding="ascii")
    except OSError as error:  # whatever it is, nothing can be written here
        raise _refusal(repository, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BuildBusy(
                f"another {work} of '{model}' is running in {repository}; wait for it, or choose another --output"
            ) from None
        yield


@contextmanager
def refusing_full_disk(repository: Path) -> Iterator[None]:
    """Turn the system's refusals to write into one named error; other errors pass.

    Raises:
        OutputError: Something inside could not be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        raise _refusal(repository, error) from error


def _refusal(repository: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write to {repository}: {error.strerror}; nothing was published. Make room or choose another "
        "--output, then run the same command again: finished steps are kept"
    )


def stage(files: Mapping[str, bytes], staging: Path) -> None:
    """Write ``files`` into the ``staging`` folder, beside what is there, and flush them to disk."""
    for name, payload in files.items():
        write_whole(staging / name, payload)
    _flush(staging)


def publish(staging: Path, target: Path) -> None:
    """Rename a staged folder to its place; before this call ``target`` does not exist, after it it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging.rename(target)
    _flush(target.parent)


def write_whole(path: Path, payload: bytes) -> None:
    """Write a file so that it is whole or absent, whatever happens: aside, flushed, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    try:
        with aside.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)  # there only where something failed, perhaps for want of the room that it takes


def _flush(folder: Path) -> None:
    """Make a folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
