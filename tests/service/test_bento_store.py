from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from service import export_cli
from service.app import Gateway
from service.bento_store import (
    BentoError,
    export_model,
    open_bento_model,
    repository_folder,
    turn_telemetry_off,
)
from service.domain.errors import BackendFailed
from service.engine.repository import Repository, read_variant
from service.settings import Settings
from tests.builders import ModelPlan, VariantPlan, write_model, write_repository

if TYPE_CHECKING:
    from collections.abc import Iterator

# Not plain imports: BentoML is optional, and it warns of deprecated names when it is first imported.
containers = pytest.importorskip("bentoml._internal.configuration.containers")
models = pytest.importorskip("bentoml.models")
model_module = pytest.importorskip("bentoml._internal.models")
usage_stats = pytest.importorskip("bentoml._internal.utils.analytics.usage_stats")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "store"
    folder.mkdir()
    containers.BentoMLContainer.model_store.set(model_module.ModelStore(folder))
    yield folder
    containers.BentoMLContainer.model_store.reset()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(write_repository(tmp_path / "repository"))


def run_export(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="tiergate")
    export_cli.add_commands(parser.add_subparsers())
    parsed = parser.parse_args(["export", *arguments])
    status: int = parsed.run(parsed)
    return status


@pytest.mark.usefixtures("store")
def test_an_exported_model_comes_back_as_a_repository_with_the_same_bytes(repository: Repository) -> None:
    (repository.root / "sums" / "1" / "report.html").write_text("<p>evidence</p>", encoding="utf-8")
    exported = export_model(repository.find("sums"))
    assert (exported.tag, exported.is_new) == ("sums:1", True)
    root = open_bento_model("sums")
    [found] = Repository(root).scan()
    assert found.manifest == repository.find("sums").manifest
    assert found.manifest is not None
    for variant in found.manifest.variants:
        assert read_variant(found.folder, variant)[0] == read_variant(repository.root / "sums" / "1", variant)[0]
    assert (found.folder / "report.html").read_text(encoding="utf-8") == "<p>evidence</p>"


@pytest.mark.usefixtures("store")
def test_an_exported_model_tells_the_store_what_it_is(repository: Repository) -> None:
    export_model(repository.find("sums"), "adder")
    info = models.get("adder:1").info
    assert info.labels == {"framework": "tiergate", "model": "sums", "version": "1", "task": "classification"}
    assert info.metadata["full_accuracy"] == pytest.approx(0.92)
    manifest = repository.find("sums").manifest
    assert manifest is not None
    assert info.metadata["build_key"] == manifest.build_key
    assert list(info.metadata["variants"]) == ["full", "quantized", "distilled"]


@pytest.mark.usefixtures("store")
async def test_a_gateway_serves_a_repository_given_as_bento(repository: Repository) -> None:
    export_model(repository.find("sums"))
    folder = repository_folder(Path("bento:sums:1"))
    gateway = Gateway(Settings(repository=folder, lanes=1, pin_lanes=False))
    await gateway.start()
    try:
        assert [row.name for row in gateway.plane.index(ready_only=True)] == ["sums"]
    finally:
        await gateway.close()


def test_a_repository_given_as_a_folder_stays_that_folder(tmp_path: Path) -> None:
    assert repository_folder(tmp_path) == tmp_path


@pytest.mark.usefixtures("store")
def test_export_leaves_the_same_build_in_place_when_it_is_repeated(repository: Repository) -> None:
    export_model(repository.find("sums"))
    before = models.get("sums:1").creation_time
    assert not export_model(repository.find("sums")).is_new
    assert models.get("sums:1").creation_time == before


@pytest.mark.usefixtures("store")
def test_export_refuses_another_build_under_the_same_tag(repository: Repository, tmp_path: Path) -> None:
    export_model(repository.find("sums"))
    other = ModelPlan(variants=(VariantPlan("full", "full", 0.5, 0.03),))
    with pytest.raises(BentoError, match=r"has another build as 'sums:1'.*--name.*bentoml models delete sums:1"):
        export_model(Repository(write_repository(tmp_path / "other", [other])).find("sums"))


def test_export_stores_nothing_when_a_file_is_corrupt(repository: Repository, store: Path) -> None:
    file = repository.root / "sums" / "1" / "distilled.onnx"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(BackendFailed, match=r"distilled\.onnx has sha256"):
        export_model(repository.find("sums"))
    assert not (store / "sums").exists()


def test_export_stores_nothing_when_the_folder_holds_a_link(repository: Repository, store: Path) -> None:
    (repository.root / "sums" / "1" / "report.html").symlink_to("/etc/hostname")
    with pytest.raises(BentoError, match=r"report\.html is not a regular file"):
        export_model(repository.find("sums"))
    assert not (store / "sums").exists()


@pytest.mark.usefixtures("store")
def test_export_refuses_a_name_that_the_store_cannot_have(repository: Repository) -> None:
    for name in ("Sums", "a b", "../up", "x" * 64, "end-"):
        with pytest.raises(BentoError, match="is no tag of the BentoML model store: allowed is"):
            export_model(repository.find("sums"), name)


@pytest.mark.usefixtures("store")
def test_opening_names_what_the_store_has_when_a_model_is_unknown(repository: Repository) -> None:
    with pytest.raises(BentoError, match=r"has no model 'sums'; it has none of tiergate"):
        open_bento_model("sums")
    export_model(repository.find("sums"))
    with pytest.raises(BentoError, match=r"has no model 'sums:2'; it has sums:1"):
        open_bento_model("sums:2")


@pytest.mark.usefixtures("store")
def test_opening_does_not_take_version_12_for_version_1(tmp_path: Path) -> None:
    write_model(tmp_path / "repository", ModelPlan(version="12"))
    export_model(Repository(tmp_path / "repository").find("sums"))
    with pytest.raises(BentoError, match=r"has no model 'sums:1'; it has sums:12"):
        open_bento_model("sums:1")
    assert open_bento_model("sums:latest") == open_bento_model("sums:12")


@pytest.mark.usefixtures("store")
def test_opening_refuses_a_model_of_another_framework() -> None:
    with models.create("stranger:1") as created:
        Path(created.path, "weights.bin").write_bytes(b"\0")
    with pytest.raises(BentoError, match=r"'stranger:1' in the BentoML model store holds no <model>/<version>"):
        open_bento_model("stranger")


def test_a_missing_extra_is_named(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bentoml", None)
    with pytest.raises(BentoError, match=r"not installed; install it with: pip install 'tiergate\[bento\]'"):
        export_model(repository.find("sums"))
    with pytest.raises(BentoError, match=r"tiergate\[bento\]"):
        repository_folder(Path("bento:sums"))


def test_telemetry_is_off_even_when_bentoml_had_already_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENTOML_DO_NOT_TRACK", raising=False)
    usage_stats.do_not_track.cache_clear()
    assert not usage_stats.do_not_track()
    turn_telemetry_off()
    assert usage_stats.do_not_track()


@pytest.mark.usefixtures("store")
def test_the_export_command_prints_the_tag_and_what_to_do_next(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_export("sums", "--to", "bento", "--repository", str(repository.root)) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("sums version 1 (3 variants, ")
    assert printed.endswith("sums:1\nnext: tiergate serve bento:sums:1\n")


@pytest.mark.usefixtures("store")
def test_the_export_command_prints_json(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_export("sums", "--to", "bento", "--repository", str(repository.root), "--name", "adder", "--json") == 0
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert printed["tag"] == "adder:1"
    assert printed["is_new"]
    assert printed["variants"] == ["full", "quantized", "distilled"]
    assert Repository(Path(printed["repository"])).find("sums").manifest is not None


@pytest.mark.usefixtures("store")
def test_the_export_command_refuses_a_model_that_is_not_there(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_export("nope", "--to", "bento", "--repository", str(repository.root)) == 2
    assert "tiergate export: model 'nope' in " in capsys.readouterr().err


def test_the_export_command_lists_where_to_when_that_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run_export("sums", "--to", "nowhere")
    assert exit_info.value.code == 2
    assert "invalid choice: 'nowhere' (choose from 'bento', 'triton', 'kserve', 'edge')" in capsys.readouterr().err
