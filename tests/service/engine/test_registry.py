from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import helper

from service.domain.errors import ModelNotFound, ModelNotReady
from service.domain.observer import SilentObserver
from service.domain.policy_file import PolicyFile
from service.engine.holding import Holding
from service.engine.opening import open_onnx_variant
from service.engine.registry import Registry
from service.engine.repository import Repository
from tests.builders import ModelPlan, VariantPlan, onnx_model, replace_file, sums_onnx, write_model, write_repository

if TYPE_CHECKING:
    from pathlib import Path

    from service.domain.variants import ModelInfo
    from service.engine.backends.backend import Backend
    from service.engine.repository import StoredFile, StoredModel
    from variants.manifest import VariantManifest


class Witness(SilentObserver):
    """Remembers failures, and whether a model could be had already when observers were told of it."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, str]] = []
        self.loaded: list[str] = []
        self.was_served_before_told = False
        self.registry: Registry | None = None

    def model_loaded(self, model: ModelInfo) -> None:
        self.loaded.append(model.version)
        held = () if self.registry is None else self.registry.all()
        self.was_served_before_told |= model in [item.info for item in held]

    def variant_failed(self, model: str, variant: str, why: str) -> None:
        del why
        self.failures.append((model, variant))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_repository(tmp_path / "repository")


@pytest.fixture
def witness() -> Witness:
    return Witness()


@pytest.fixture
def registry(root: Path, witness: Witness) -> Registry:
    witness.registry = Registry(Repository(root), PolicyFile(), witness)
    return witness.registry


def compute(registry: Registry, variant: str, rows: int = 1) -> list[float]:
    (outputs,) = registry.get("sums").backends[variant].run({"x": np.ones((rows, 4), dtype=np.float32)})
    return [float(value) for value in outputs[:, 0]]


def test_load_all_serves_every_model(registry: Registry, root: Path) -> None:
    write_model(root, ModelPlan(name="others"))
    registry.load_all()
    assert [model.info.name for model in registry.all()] == ["others", "sums"]
    assert [(row.name, row.state, row.reason) for row in registry.index()] == [
        ("others", "READY", ""),
        ("sums", "READY", ""),
    ]


def test_load_opens_every_variant_for_any_number_of_rows(registry: Registry) -> None:
    registry.load("sums")
    assert [compute(registry, name, rows=2) for name in ("full", "quantized", "distilled")] == [[4.0, 4.0]] * 3


def test_load_learns_at_warm_up_how_this_machine_differs_from_the_profile(registry: Registry) -> None:
    model = registry.load("sums")
    # A four-element product takes microseconds here; the plan says 30 ms.
    assert 0.0 < model.corrections["full"].at(0.0) < 0.5


def test_observers_know_a_model_before_a_request_can_reach_it(registry: Registry, witness: Witness) -> None:
    registry.load("sums")
    assert witness.loaded == ["1"]
    assert not witness.was_served_before_told


def test_a_corrupt_variant_is_left_out_and_named_while_the_others_serve(
    registry: Registry, root: Path, witness: Witness
) -> None:
    (root / "sums" / "1" / "full.onnx").write_bytes(b"corrupt")
    registry.load_all()
    assert set(registry.get("sums").backends) == {"quantized", "distilled"}
    (row,) = registry.index()
    assert (row.state, witness.failures) == ("READY", [("sums", "full")])
    assert row.reason.startswith("variant full: full.onnx has 7 bytes; the manifest says ")
    states = {state.variant.name: (state.state, state.reason[:17]) for state in registry.states("sums", 0.0)}
    assert states == {"full": ("failed", "full.onnx has 7 b"), "quantized": ("ready", ""), "distilled": ("ready", "")}


BROKEN_FILES = {
    "bytes that are no model": (b"garbage that hashes right", "not a readable ONNX model"),
    "another interface": (sums_onnx().replace(b"\x01y", b"\x01z"), "the manifest declares"),
    "a custom operator": (
        onnx_model(
            [helper.make_node("Run", ["x"], ["y"], domain="evil")],
            opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("evil", 1)],
        ),
        "domain 'evil'",
    ),
    "an operator that does not exist": (onnx_model([helper.make_node("Nonsense", ["x"], ["y"])]), "runtime refuses"),
}


@pytest.mark.parametrize(("content", "problem"), BROKEN_FILES.values(), ids=BROKEN_FILES.keys())
def test_a_variant_whose_file_matches_its_manifest_but_cannot_run_is_left_out(
    registry: Registry, root: Path, content: bytes, problem: str
) -> None:
    replace_file(root / "sums" / "1", "full", content)
    registry.load_all()
    assert problem in registry.get("sums").problems["full"]


def test_a_variant_that_fails_at_warm_up_is_left_out(registry: Registry, root: Path) -> None:
    shape = helper.make_node("Constant", [], ["shape"], value_ints=[3, 1])
    wrong = onnx_model([shape, helper.make_node("Reshape", ["x", "shape"], ["y"])])
    replace_file(root / "sums" / "1", "full", wrong)
    registry.load_all()
    assert "the runtime failed" in registry.get("sums").problems["full"]


def test_a_variant_without_single_thread_latency_is_left_out(registry: Registry, root: Path) -> None:
    plans = (VariantPlan("full", "full", 0.9, 0.01, threads=2), VariantPlan("quantized", "quantized", 0.9, 0.01))
    write_model(root, ModelPlan(name="others", variants=plans))
    registry.load_all()
    assert "measured with one thread" in registry.get("others").problems["full"]


def test_a_model_without_any_good_variant_is_unavailable_with_the_reasons(
    registry: Registry, root: Path, witness: Witness
) -> None:
    for file in (root / "sums" / "1").glob("*.onnx"):
        file.unlink()
    registry.load_all()
    (row,) = registry.index()
    assert row.state == "UNAVAILABLE"
    assert "full: full.onnx cannot be read" in row.reason
    assert ("sums", "") in witness.failures
    with pytest.raises(ModelNotReady, match="'sums' is not ready: no variant can be loaded"):
        registry.get("sums")


def test_a_broken_folder_is_in_the_index_and_stops_no_other_model(registry: Registry, root: Path) -> None:
    (root / "empty").mkdir()
    registry.load_all()
    assert [(row.name, row.state) for row in registry.index()] == [("sums", "READY"), ("empty", "UNAVAILABLE")]


def test_a_folder_in_place_of_a_file_stops_no_other_variant(registry: Registry, root: Path) -> None:
    (root / "sums" / "1" / "full.onnx").unlink()
    (root / "sums" / "1" / "full.onnx").mkdir()
    registry.load_all()
    assert set(registry.get("sums").backends) == {"quantized", "distilled"}


def test_loading_a_model_that_is_not_there_leaves_no_trace(registry: Registry, witness: Witness) -> None:
    with pytest.raises(ModelNotFound, match="'absent' cannot be loaded"):
        registry.load("absent")
    with pytest.raises(ModelNotFound, match="'absent' is unknown"):
        registry.get("absent")
    assert (registry.index(), witness.failures) == ((), [])


def test_reload_serves_the_new_version(registry: Registry, root: Path) -> None:
    registry.load("sums")
    plans = (VariantPlan("full", "full", 0.9, 0.01, scale=2.0),)
    write_model(root, ModelPlan(version="2", variants=plans))
    registry.load("sums")
    assert (registry.get("sums").info.version, compute(registry, "full")) == ("2", [8.0])


def test_a_failed_reload_keeps_the_old_model_and_says_so(registry: Registry, root: Path) -> None:
    registry.load("sums")
    folder = write_model(root, ModelPlan(version="2"))
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelNotReady, match="schema_version None"):
        registry.load("sums")
    (row,) = registry.index()
    assert (row.version, row.state) == ("1", "READY")
    assert row.reason.startswith("reload failed: sums/2/manifest.json")
    assert compute(registry, "full") == [4.0]


def test_a_good_reload_clears_the_problem_of_a_failed_one(registry: Registry, root: Path) -> None:
    registry.load("sums")
    folder = write_model(root, ModelPlan(version="2"))
    manifest = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelNotReady):
        registry.load("sums")
    (folder / "manifest.json").write_bytes(manifest)
    registry.load("sums")
    (row,) = registry.index()
    assert (row.version, row.reason) == ("2", "")


def test_unload_forgets_the_model_until_it_is_loaded_again(registry: Registry) -> None:
    registry.load("sums")
    registry.unload("sums")
    with pytest.raises(ModelNotReady, match="'sums' is unloaded"):
        registry.get("sums")
    assert [(row.state, row.reason) for row in registry.index()] == [("UNAVAILABLE", "unloaded")]
    registry.load("sums")
    assert [row.state for row in registry.index()] == ["READY"]


def test_unload_after_a_failed_reload_leaves_one_row(registry: Registry, root: Path) -> None:
    registry.load("sums")
    (root / "sums" / "1" / "manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelNotReady):
        registry.load("sums")
    registry.unload("sums")
    assert [(row.name, row.reason) for row in registry.index()] == [("sums", "unloaded")]


def test_unload_refuses_a_model_that_is_not_loaded(registry: Registry) -> None:
    with pytest.raises(ModelNotFound, match="'sums' is unknown; loaded are none"):
        registry.unload("sums")


def test_get_refuses_another_version_and_names_the_served_one(registry: Registry) -> None:
    registry.load("sums")
    assert registry.get("sums", "1").info.version == "1"
    with pytest.raises(ModelNotFound, match="no version '2'; version 1 is served"):
        registry.get("sums", "2")


def test_a_model_whose_folder_has_gone_is_served_on(registry: Registry, root: Path) -> None:
    registry.load("sums")
    shutil.rmtree(root / "sums")
    with pytest.raises(ModelNotFound):
        registry.load("sums")
    assert compute(registry, "full") == [4.0]


def test_a_model_that_surprises_while_it_is_loaded_leaves_the_others_serving(root: Path, witness: Witness) -> None:
    def surprise(stored: StoredModel, info: ModelInfo, variant: VariantManifest) -> tuple[Backend, StoredFile]:
        if stored.name == "others":
            raise MemoryError
        return open_onnx_variant(stored, info, variant)

    write_model(root, ModelPlan(name="others"))
    holding = Holding(witness, open_variant=surprise)
    registry = Registry(Repository(root), PolicyFile(), witness, holding=holding)
    registry.load_all()
    assert compute(registry, "full") == [4.0]
    assert ("others", "full") in witness.failures
    with pytest.raises(ModelNotReady, match="unexpected MemoryError"):
        registry.get("others")


def test_a_policy_that_allows_no_variant_makes_the_model_unavailable(root: Path, witness: Witness) -> None:
    policy = PolicyFile.model_validate({"models": {"sums": {"variants": ["absent"]}}})
    registry = Registry(Repository(root), policy, witness)
    registry.load_all()
    with pytest.raises(ModelNotReady, match="its policy allows only absent"):
        registry.get("sums")


def test_a_folder_whose_name_is_no_text_is_listed_in_a_form_that_is(registry: Registry, root: Path) -> None:
    (root / os.fsdecode(b"caf\xe9")).mkdir()
    registry.load_all()
    rows = {row.name: row.state for row in registry.index()}
    assert rows == {"sums": "READY", "caf\\xe9": "UNAVAILABLE"}


def test_a_reload_beside_traffic_keeps_the_calm_time_of_the_same_file(registry: Registry) -> None:
    registry.load_all()
    calm = registry.get("sums").corrections["full"]
    calm.rebase(0.5e-6, 0.0)
    registry.load("sums")
    assert registry.get("sums").corrections["full"].base == 0.5e-6
