"""``tiergate export --to edge``: what is written, who may use which variant, and what other runtimes answered."""

from __future__ import annotations

import argparse
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

from service import export_cli
from tests.builders import sums_onnx, write_repository
from variants.edge import CLASSES, Proof, convert, describe_edge, prove
from variants.evidence import Hardware, Saturation
from variants.manifest import ModelManifest, VariantManifest, read_manifest

if TYPE_CHECKING:
    from pathlib import Path

FAKE_RUNTIME = """
// Answers as the file of the test does, whatever the file: twice the sum of each row, and wrongly for some rows.
class Tensor { constructor(type, data, dims) { this.type = type; this.data = data; this.dims = dims; } }
const InferenceSession = {
  create: async (bytes) => ({
    outputNames: ["y"],
    run: async ({ x }) => {
      const [rows, width] = x.dims, data = new Float32Array(rows);
      for (let row = 0; row < rows; row++) {
        for (let at = 0; at < width; at++) data[row] += 2 * x.data[row * width + at];
        if (x.data[row * width] === 7) data[row] = 1e6;
      }
      return { y: new Tensor("float32", data, [rows, 1]) };
    },
  }),
};
module.exports = { Tensor, InferenceSession, env: { wasm: {}, versions: { web: "9.8.7" } } };
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write_repository(tmp_path / "repository")


@pytest.fixture
def manifest(repository: Path) -> ModelManifest:
    return read_manifest(repository / "sums" / "1")


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    if shutil.which("node") is None:
        pytest.skip("Node is not installed here")
    folder = tmp_path / "packages"
    (folder / "node_modules" / "onnxruntime-web").mkdir(parents=True)
    (folder / "node_modules" / "onnxruntime-web" / "index.js").write_text(FAKE_RUNTIME)
    return folder


def export(repository: Path, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    export_cli.add_commands(parser.add_subparsers())
    output = str(repository.parent / "out")
    parsed = parser.parse_args(
        ["export", "sums", "--repository", str(repository), "--to", "edge", "--output", output, *arguments]
    )
    status: int = parsed.run(parsed)
    return status


def test_every_variant_becomes_an_ort_file_that_answers_alike(repository: Path) -> None:
    assert export(repository) == 0
    folder = repository.parent / "out" / "sums"
    told = json.loads((folder / "edge.json").read_text())
    assert sorted(path.name for path in folder.iterdir()) == [
        "distilled.ort", "edge.json", "full.ort", "quantized.ort",
    ]  # fmt: skip
    assert set(told["classes"]) == {
        "server-vnni", "server-avx2", "arm64", "browser-wasm", "browser-webgpu", "mobile",
    }  # fmt: skip
    assert told["variants"]["full"]["bytes"] == (folder / "full.ort").stat().st_size
    session = onnxruntime.InferenceSession(str(folder / "full.ort"), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.ones((2, 4), np.float32)})[0].tolist() == [[4.0], [4.0]]


def test_one_variant_may_be_asked_for_and_rows_need_a_runtime(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(repository, "--variant", "full") == 0
    assert "not executed in any runtime of devices" in capsys.readouterr().out
    assert export(repository, "--variant", "absent", "--force") == 2
    assert "has no variant absent" in capsys.readouterr().err
    assert export(repository, "--rows", "rows.npz", "--force") == 2
    assert "--rows and --node go together" in capsys.readouterr().err


def test_what_a_runtime_answered_is_recorded(
    repository: Path, packages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "rows.npz", x=np.ones((5, 4), np.float32))
    assert export(repository, "--variant", "full", "--rows", str(tmp_path / "rows.npz"), "--node", str(packages)) == 0
    told = json.loads((repository.parent / "out" / "sums" / "edge.json").read_text())
    web, node = told["variants"]["full"]["targets"]
    assert (web["runtime"], web["rows"]) == ("onnxruntime-web 9.8.7", 5)
    assert node == {
        "runtime": "onnxruntime-node",
        "proven": False,
        "reason": "not tried: no node_modules/onnxruntime-node there",
    }
    assert "not tried" in capsys.readouterr().out


@pytest.mark.parametrize(("wrong", "agreement", "proven"), [(0, 1.0, True), (1, 0.999, True), (2, 0.998, False)])
def test_a_variant_is_proven_where_999_of_1000_rows_are_answered_alike(
    packages: Path, wrong: int, agreement: float, proven: bool
) -> None:
    rows = np.random.default_rng(0).random((1000, 4)).astype(np.float32)
    rows[:wrong, 0] = 7.0
    file = sums_onnx(2.0)
    web, _ = prove(file, convert(file), rows, packages, is_classes=False)
    assert web.agreement == pytest.approx(agreement)
    assert (web.rows, web.is_proven) == (1000, proven)


def test_a_runtime_that_refuses_a_file_is_quoted(packages: Path) -> None:
    (packages / "node_modules" / "onnxruntime-web" / "index.js").write_text("throw new Error('no such operator')")
    file = sums_onnx(2.0)
    web, _ = prove(file, convert(file), np.ones((2, 4), np.float32), packages, is_classes=False)
    assert "no such operator" in web.problem
    assert not web.is_proven


def variant(manifest: ModelManifest, dtype: str, **hardware: Any) -> VariantManifest:  # noqa: ANN401 - fields
    found = manifest.variant("full")
    known = Hardware(**{"measured_on": "test", "isa": (), "verified_isa": (), "proven_isa": (), **hardware})
    return found.model_copy(
        update={"size": found.size.model_copy(update={"weight_bytes": {dtype: 1}}), "hardware": known}
    )


def safe_in(item: VariantManifest, manifest: ModelManifest, proofs: tuple[Proof, ...] = ()) -> set[str]:
    only = manifest.model_copy(update={"variants": (item,)})
    told = describe_edge(only, {"full": b""}, {"full": proofs})
    return {name for name, uses in told["classes"].items() if uses["full"]["safe"]}


def test_a_class_may_use_what_is_known_to_be_right_there(manifest: ModelManifest) -> None:
    reduced = {"proven_isa": ("avx2", "avx512f")}
    harmless = Saturation(rows=500, agreement=0.999, loss=0.002, verdict="pass")
    harmful = Saturation(rows=500, agreement=0.9, loss=0.06, verdict="fail")
    everywhere = set(CLASSES)
    assert safe_in(variant(manifest, "FLOAT"), manifest) == everywhere
    assert safe_in(variant(manifest, "INT8", **reduced), manifest) == everywhere - {"browser-webgpu"}
    assert safe_in(variant(manifest, "INT8"), manifest) == {"server-vnni"}
    assert safe_in(variant(manifest, "INT8", saturation=harmless), manifest) == {"server-vnni", "server-avx2"}
    assert safe_in(variant(manifest, "INT8", saturation=harmful), manifest) == {"server-vnni"}


def test_a_browser_may_use_what_was_tried_there_and_nothing_that_failed(manifest: ModelManifest) -> None:
    right, wrong = (Proof("onnxruntime-web", "1.30.0", 1000, share) for share in (0.9995, 0.99))
    eight_bits, floats = variant(manifest, "INT8"), variant(manifest, "FLOAT")
    assert "browser-wasm" in safe_in(eight_bits, manifest, (right,))
    assert "browser-wasm" not in safe_in(floats, manifest, (wrong,))
    not_tried = Proof("onnxruntime-web", problem="not tried: Node is not installed", was_tried=False)
    assert "browser-wasm" in safe_in(floats, manifest, (not_tried,))
