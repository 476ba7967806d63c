"""A variant that is stored packed: what is verified, what is loaded, what is refused."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

from service.domain.errors import BackendFailed
from service.engine.repository import read_onnx, read_variant
from tests.builders import sums_onnx, write_model
from variants.manifest import ModelManifest, Unpacked, VariantManifest, read_manifest
from variants.packed import Cut, pack

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path)


def pack_variant(folder: Path, holds: bytes | None = None, size: int | None = None) -> VariantManifest:
    """Store ``distilled`` packed; ``holds`` is what its manifest is told of, the same file by default."""
    file = sums_onnx(2.0)
    stored = pack(
        file, [Cut(file.index(np.float32(2.0).tobytes() * 4), np.zeros(4, np.int64), np.array([2.0], np.float32))]
    )
    (folder / "distilled.packed").write_bytes(stored)
    variant = read_manifest(folder).variant("distilled")
    told = file if holds is None else holds
    return variant.model_copy(
        update={
            "file": "distilled.packed",
            "sha256": hashlib.sha256(stored).hexdigest(),
            "size": variant.size.model_copy(update={"file_bytes": len(stored)}),
            "unpacked": Unpacked(bytes=size or len(told), sha256=hashlib.sha256(told).hexdigest()),
        }
    )


def test_read_onnx_returns_what_a_packed_file_holds(folder: Path) -> None:
    variant = pack_variant(folder)
    content, file = read_onnx(folder, variant)
    assert content == sums_onnx(2.0)
    assert file.path == folder / "distilled.packed"
    assert read_variant(folder, variant)[0] == (folder / "distilled.packed").read_bytes()


def test_read_onnx_returns_other_files_as_they_are(folder: Path) -> None:
    assert read_onnx(folder, read_manifest(folder).variant("full"))[0] == sums_onnx(1.0)


def test_the_stored_bytes_are_verified_before_they_are_unpacked(folder: Path) -> None:
    variant = pack_variant(folder)
    broken = bytearray((folder / "distilled.packed").read_bytes())
    broken[-1] ^= 1
    (folder / "distilled.packed").write_bytes(broken)
    with pytest.raises(BackendFailed, match=r"distilled\.packed has sha256"):
        read_onnx(folder, variant)


def test_another_file_inside_is_refused(folder: Path) -> None:
    with pytest.raises(BackendFailed, match="holds another file than the manifest says"):
        read_onnx(folder, pack_variant(folder, sums_onnx(3.0)))


def test_a_larger_file_inside_is_refused(folder: Path) -> None:
    with pytest.raises(BackendFailed, match=r"cannot be unpacked: .* it holds \d+ bytes; 10 are allowed"):
        read_onnx(folder, pack_variant(folder, size=10))


def test_a_manifest_says_what_a_packed_file_holds(folder: Path) -> None:
    manifest = read_manifest(folder)
    packed = pack_variant(folder).model_copy(update={"unpacked": None})
    changed = manifest.model_copy(update={"variants": (*manifest.variants[:2], packed)})
    with pytest.raises(ValueError, match=r"a file ending in \.packed says what it holds"):
        ModelManifest.model_validate_json(changed.model_dump_json())
