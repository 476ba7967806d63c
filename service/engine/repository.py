"""Models on disk: which there are, and the verified bytes of their variants.

Layout: ``<root>/<model>/<version>/manifest.json`` beside one file per variant; the highest version is served. What is
hashed is what is loaded: a file is read once into memory, and only regular files with one name are read, so that
neither a symlink nor a change after the check can slip other bytes in.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.domain.errors import BackendFailed
from service.domain.tensors import TensorSpec
from service.domain.variants import Cascade, LatencyCell, ModelInfo, Profile, Variant
from variants.manifest import MANIFEST_FILE, NAME_PATTERN, ManifestError, read_manifest
from variants.packed import PackedError, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from service.engine.node import Node, Unproven
    from variants.manifest import ModelManifest, TensorInfo, VariantManifest

_NAME = re.compile(NAME_PATTERN)
_VERSION = re.compile(r"^[1-9][0-9]{0,8}$")


@dataclass(frozen=True, slots=True)
class StoredModel:
    """One model folder: its newest version and manifest, or what is wrong with it.

    ``unproven`` are variants that are not known to be right on this machine; the manifest says already what is done.
    """

    name: str
    version: str
    folder: Path
    manifest: ModelManifest | None
    problem: str = ""
    unproven: tuple[Unproven, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A verified file and what its inode looked like when it was read, to notice a later change."""

    path: Path
    identity: tuple[int, int, int, int]

    def is_unchanged(self) -> bool:
        """Tell whether the file is still the one that was verified."""
        try:
            return _identity(self.path.lstat()) == self.identity
        except OSError:
            return False


class Repository:
    """A folder of models; every call looks at the disk anew."""

    def __init__(self, root: Path, node: Node | None = None) -> None:
        """Remember the folder; nothing is read yet. With a ``node`` manifests are as they hold on that machine."""
        self.root = root
        self._node = node

    def scan(self) -> tuple[StoredModel, ...]:
        """Return every model in the folder, by name, the broken ones with their problem.

        Raises:
            BackendFailed: The folder cannot be read.
        """
        try:
            names = sorted(entry.name for entry in self.root.iterdir() if entry.is_dir())
        except OSError as error:
            raise BackendFailed(f"repository {self.root} cannot be read: {error.strerror}") from None
        return tuple(self.find(name) for name in names if not name.startswith("."))

    @staticmethod
    def _printable(name: str) -> str:
        """Return a folder's name as text that can leave the process; on disk it may be any bytes."""
        return os.fsencode(name).decode("utf-8", "backslashreplace")

    def find(self, name: str) -> StoredModel:
        """Return one model's newest version; a missing or broken one carries its problem."""
        folder = self.root / name
        if not _NAME.fullmatch(name):
            return StoredModel(self._printable(name), "", folder, None, f"the name does not match {NAME_PATTERN}")
        versions = sorted(_versions(folder), key=int)
        if not versions:
            return StoredModel(name, "", folder, None, f"no version folder with a {MANIFEST_FILE}")
        version = versions[-1]
        path = folder / version / MANIFEST_FILE
        linked = [item.name for item in (folder, folder / version, path) if item.is_symlink()]
        if linked:
            return StoredModel(name, version, folder / version, None, f"'{linked[0]}' is a symbolic link")
        try:
            manifest = read_manifest(folder / version)
        except ManifestError as error:
            # The operator sees the full path in the log; callers see only what is wrong inside the repository.
            problem = str(error).replace(f"{self.root}{os.sep}", "")
            return StoredModel(name, version, folder / version, None, problem)
        if (manifest.model, manifest.version) != (name, version):
            problem = f"the manifest is of {manifest.model}/{manifest.version}, the folder is {name}/{version}"
            return StoredModel(name, version, folder / version, None, problem)
        suited, unproven = (manifest, ()) if self._node is None else self._node.suit(manifest)
        return StoredModel(name, version, folder / version, suited, unproven=unproven)


def read_variant(folder: Path, variant: VariantManifest) -> tuple[bytes, StoredFile]:
    """Read a variant's file and verify it; return its bytes and where they came from.

    Raises:
        BackendFailed: It is missing, not a plain file, or its bytes are not those of the manifest.
    """
    path = folder / variant.file
    try:
        content, status = _read_plain_file(path, variant)
    except OSError as error:
        raise BackendFailed(f"{variant.file} cannot be read: {error.strerror}") from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != variant.sha256:
        raise BackendFailed(f"{variant.file} has sha256 {digest[:12]}...; the manifest says {variant.sha256[:12]}...")
    return content, StoredFile(path, _identity(status))


def read_onnx(folder: Path, variant: VariantManifest) -> tuple[bytes, StoredFile]:
    """Read a variant's file, verify it, and return the ONNX file that it is or holds; and where it came from.

    Raises:
        BackendFailed: As ``read_variant``, or what it holds is not what the manifest says.
    """
    content, file = read_variant(folder, variant)
    holds = variant.unpacked
    if holds is None:
        return content, file
    try:
        content = unpack(content, holds.bytes)
    except PackedError as error:
        raise BackendFailed(f"{variant.file} cannot be unpacked: {error}") from None
    if hashlib.sha256(content).hexdigest() != holds.sha256:
        raise BackendFailed(f"{variant.file} holds another file than the manifest says")
    return content, file


def _read_plain_file(path: Path, variant: VariantManifest) -> tuple[bytes, os.stat_result]:
    with open(path, "rb", opener=_open_unfollowed) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise BackendFailed(f"{variant.file} is not a regular file")
        if status.st_nlink != 1:
            raise BackendFailed(f"{variant.file} has {status.st_nlink} names (hard links); 1 is allowed")
        if status.st_size != variant.size.file_bytes:
            raise BackendFailed(
                f"{variant.file} has {status.st_size} bytes; the manifest says {variant.size.file_bytes}"
            )
        return file.read(), status


def _open_unfollowed(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)  # a FIFO without a writer must not hold us


def describe(manifest: ModelManifest) -> ModelInfo:
    """Turn a manifest into what routing and clients see; what a gate kept from being published is not among it."""
    return ModelInfo(
        name=manifest.model,
        version=manifest.version,
        inputs=tuple(map(_spec, manifest.inputs)),
        outputs=tuple(map(_spec, manifest.outputs)),
        max_batch_size=manifest.max_batch_size,
        variants=tuple(map(_variant, manifest.published)),
        metric=manifest.metric,
        cascades=tuple(
            Cascade(item.variant, item.escalate_to, item.margin, item.escalated_ratio, item.accuracy)
            for item in manifest.cascades
        ),
        labels=manifest.labels,
    )


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _versions(folder: Path) -> Iterator[str]:
    """Yield the version folders that have a manifest; what may not be looked into has none."""
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            if _VERSION.fullmatch(entry.name) and (entry / MANIFEST_FILE).is_file():
                yield entry.name


def _spec(info: TensorInfo) -> TensorSpec:
    return TensorSpec(info.name, info.datatype, info.shape)


def _variant(item: VariantManifest) -> Variant:
    # A lane runs one thread, so only the single-thread rows speak of it.
    rows = sorted((row for row in item.latency.rows if row.threads == 1), key=lambda row: row.batch_size)
    cells = tuple(LatencyCell(row.batch_size, row.p50_s, row.p95_s, row.p99_s) for row in rows)
    is_routable = item.routing.state == "routable"
    return Variant(
        name=item.name,
        tier=item.tier,
        accuracy=item.accuracy.value,
        profile=Profile(cells),
        memory_bytes=item.memory.loaded_bytes,
        file_bytes=item.size.file_bytes,
        digest=item.sha256,
        is_routable=is_routable and bool(cells),
        note=item.routing.reason if cells else "the manifest has no single-thread latency",
        dominated_by=item.routing.dominated_by or "",
    )
