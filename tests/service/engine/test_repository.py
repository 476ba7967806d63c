from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from service.domain.errors import BackendFailed
from service.domain.variants import Cascade, LatencyCell
from service.engine.repository import Repository, StoredFile, describe, read_variant
from tests.builders import SUMS, ModelPlan, VariantPlan, sums_onnx, write_model, write_repository
from variants.manifest import MANIFEST_FILE, ModelManifest, VariantManifest, read_manifest

OTHER = ModelPlan(name="others")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_repository(tmp_path / "repository")


@pytest.fixture
def folder(root: Path) -> Path:
    return root / "sums" / "1"


@pytest.fixture
def full(folder: Path) -> VariantManifest:
    return read_manifest(folder).variant("full")


def manifest_of(root: Path, name: str = "sums") -> ModelManifest:
    found = Repository(root).find(name).manifest
    assert found is not None
    return found


def problem_of(root: Path, name: str = "sums") -> str:
    found = Repository(root).find(name)
    assert found.manifest is None
    return found.problem


def test_scan_finds_every_model_by_name(root: Path) -> None:
    write_model(root, OTHER)
    assert [stored.name for stored in Repository(root).scan()] == ["others", "sums"]


def test_scan_leaves_out_files_and_hidden_folders(root: Path) -> None:
    (root / ".cache").mkdir()
    (root / "notes.txt").write_text("hello", encoding="utf-8")
    assert [stored.name for stored in Repository(root).scan()] == ["sums"]


def test_scan_says_what_is_wrong_with_a_broken_model_beside_the_others(root: Path) -> None:
    (root / "broken").mkdir()
    (root / "Bad Name").mkdir()
    found = {stored.name: stored.problem for stored in Repository(root).scan()}
    assert found["sums"] == ""
    assert "no version folder" in found["broken"]
    assert "does not match" in found["Bad Name"]


def test_scan_refuses_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BackendFailed, match="cannot be read: No such file"):
        Repository(tmp_path / "absent").scan()


def test_find_takes_the_highest_version_as_a_number(root: Path) -> None:
    for version in ("2", "10"):
        write_model(root, ModelPlan(version=version))
    assert manifest_of(root).version == "10"


@pytest.mark.parametrize("name", ["0", "01", "-1", "1.5", "v2", "latest", "9999999999"])
def test_find_leaves_out_folders_that_are_no_versions(root: Path, name: str) -> None:
    shutil.copytree(root / "sums" / "1", root / "sums" / name)
    assert manifest_of(root).version == "1"


def test_find_leaves_out_a_version_without_a_manifest(root: Path) -> None:
    (root / "sums" / "2").mkdir()
    assert manifest_of(root).version == "1"


@pytest.mark.parametrize(
    "name", ["..", "../sums", "sums/1", "", "sums\0", "Sums", "a" * 65, ".hidden", "sums\n", "a b"]
)
def test_find_refuses_names_that_could_lead_elsewhere(root: Path, name: str) -> None:
    assert "does not match" in problem_of(root, name)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 1}', '{"schema_version": 99}'])
def test_find_says_what_is_wrong_with_a_manifest_but_not_where_the_repository_is(root: Path, content: str) -> None:
    (root / "sums" / "1" / MANIFEST_FILE).write_text(content, encoding="utf-8")
    problem = problem_of(root)
    assert problem.startswith("sums/1/manifest.json")
    assert str(root) not in problem


def test_find_refuses_the_manifest_of_another_model(root: Path) -> None:
    other = write_model(root, OTHER)
    shutil.copy(other / MANIFEST_FILE, root / "sums" / "1" / MANIFEST_FILE)
    assert problem_of(root) == "the manifest is of others/1, the folder is sums/1"


def test_find_refuses_the_manifest_of_another_version(root: Path) -> None:
    shutil.copytree(root / "sums" / "1", root / "sums" / "2")
    assert problem_of(root) == "the manifest is of sums/1, the folder is sums/2"


def test_find_refuses_a_manifest_whose_file_lies_elsewhere(root: Path, folder: Path) -> None:
    text = (folder / MANIFEST_FILE).read_text(encoding="utf-8")
    (folder / MANIFEST_FILE).write_text(text.replace("full.onnx", "../full.onnx"), encoding="utf-8")
    assert "plain file name" in problem_of(root)


def test_read_variant_returns_the_verified_bytes(folder: Path, full: VariantManifest) -> None:
    content, file = read_variant(folder, full)
    assert content == (folder / "full.onnx").read_bytes()
    assert file.is_unchanged()


def test_read_variant_refuses_other_bytes_of_the_same_size(folder: Path, full: VariantManifest) -> None:
    content = bytearray((folder / "full.onnx").read_bytes())
    content[-1] ^= 1
    (folder / "full.onnx").write_bytes(content)
    with pytest.raises(BackendFailed, match=r"full.onnx has sha256 \w{12}\.\.\.; the manifest says \w{12}"):
        read_variant(folder, full)


def test_read_variant_refuses_another_size(folder: Path, full: VariantManifest) -> None:
    with (folder / "full.onnx").open("ab") as file:
        file.write(b"more")
    with pytest.raises(BackendFailed, match=r"has \d+ bytes; the manifest says"):
        read_variant(folder, full)


def test_read_variant_refuses_a_missing_file(folder: Path, full: VariantManifest) -> None:
    (folder / "full.onnx").unlink()
    with pytest.raises(BackendFailed, match=r"full\.onnx cannot be read: No such file"):
        read_variant(folder, full)


def test_read_variant_refuses_a_symlink_even_to_the_right_bytes(folder: Path, full: VariantManifest) -> None:
    (folder / "full.onnx").rename(folder / "moved.onnx")
    (folder / "full.onnx").symlink_to("moved.onnx")
    with pytest.raises(BackendFailed, match="cannot be read: Too many levels"):
        read_variant(folder, full)


def test_read_variant_refuses_a_hardlink(folder: Path, full: VariantManifest) -> None:
    os.link(folder / "full.onnx", folder / "again.onnx")
    with pytest.raises(BackendFailed, match=r"has 2 names \(hard links\)"):
        read_variant(folder, full)


def test_read_variant_refuses_a_fifo_without_waiting_for_a_writer(folder: Path, full: VariantManifest) -> None:
    (folder / "full.onnx").unlink()
    os.mkfifo(folder / "full.onnx")
    with pytest.raises(BackendFailed, match="not a regular file"):
        read_variant(folder, full)


def test_read_variant_refuses_a_folder(folder: Path, full: VariantManifest) -> None:
    (folder / "full.onnx").unlink()
    (folder / "full.onnx").mkdir()
    with pytest.raises(BackendFailed, match="cannot be read: Is a directory"):
        read_variant(folder, full)


def test_read_variant_refuses_a_device(full: VariantManifest) -> None:
    device = full.model_copy(update={"file": "null"})
    with pytest.raises(BackendFailed, match="not a regular file"):
        read_variant(Path("/dev"), device)


def test_stored_file_notices_a_change(folder: Path, full: VariantManifest) -> None:
    _, file = read_variant(folder, full)
    (folder / "new.onnx").write_bytes(sums_onnx(2.0))
    (folder / "new.onnx").replace(folder / "full.onnx")
    assert not file.is_unchanged()


def test_stored_file_notices_that_it_is_gone(folder: Path, full: VariantManifest) -> None:
    _, file = read_variant(folder, full)
    (folder / "full.onnx").unlink()
    assert not StoredFile(file.path, file.identity).is_unchanged()


def test_describe_gives_what_routing_needs(root: Path) -> None:
    model = describe(manifest_of(root))
    full = model.variants[0]
    assert (model.name, model.version, model.max_batch_size) == ("sums", "1", 8)
    assert [variant.name for variant in model.variants] == [plan.name for plan in SUMS.variants]
    assert (full.accuracy, full.is_routable) == (0.92, True)
    assert full.profile.cells[0] == LatencyCell(1, 0.030, 0.030, 0.030)


def test_describe_keeps_out_of_routing_what_was_not_measured_with_one_thread(tmp_path: Path) -> None:
    plan = VariantPlan("full", "full", 0.9, 0.01, threads=2)
    root = write_repository(tmp_path, [ModelPlan(variants=(plan,))])
    (variant,) = describe(manifest_of(root)).variants
    assert (variant.is_routable, variant.note) == (False, "the manifest has no single-thread latency")


def test_describe_keeps_out_of_routing_what_the_manifest_keeps_out(tmp_path: Path) -> None:
    plan = VariantPlan("full", "full", 0.9, 0.01, is_routable=False)
    root = write_repository(tmp_path, [ModelPlan(variants=(plan,))])
    (variant,) = describe(manifest_of(root)).variants
    assert (variant.is_routable, variant.note) == (False, "as planned")


def test_describe_names_the_dominator(root: Path) -> None:
    manifest = manifest_of(root)
    full, quantized, *rest = manifest.variants
    routing = full.routing.model_copy(update={"state": "dominated", "dominated_by": "quantized"})
    changed = manifest.model_copy(update={"variants": (full.model_copy(update={"routing": routing}), quantized, *rest)})
    described = describe(changed).variants
    assert [(item.is_routable, item.dominated_by) for item in described[:2]] == [(False, "quantized"), (True, "")]


def test_describe_keeps_the_cascades(tmp_path: Path) -> None:
    cascades = (
        Cascade("distilled", "quantized", 0.25, 0.05, 0.9),
        Cascade("distilled", "full", 1.5, 0.2, 0.915),
    )
    root = write_repository(tmp_path / "cascaded", (ModelPlan(cascades=cascades),))
    assert describe(manifest_of(root)).cascades == cascades
