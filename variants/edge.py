"""A built model for devices: ``.ort`` files, and which class of hardware may use which of them.

``.ort`` is ONNX Runtime's own format for small builds (mobile, web): the graph is optimised and laid out once, here,
and is read without a parser of ONNX. Optimisations that suit this machine's processor alone are left out.

A class may use a variant where its arithmetic is known to be right there, which is not the same for int8 everywhere::

    server-vnni      everything: products are added in 32 bits
    server-avx2      floats; int8 whose weights exclude saturation, or whose loss under it was found to be small
    arm64, mobile    floats; int8 of 7-bit weights, which no kernel can saturate
    browser-wasm     what onnxruntime-web answered as the runtime here does, where that was tried; else floats and int8
                     of 7-bit weights, which its dot product asks for
    browser-webgpu   floats alone: int8 files in QDQ form are answered wrongly there

A variant is proven in a runtime when that runtime answered at least 99.9 % of the rows with the same class. Nothing is
fetched for that: Node and the packages onnxruntime-web and onnxruntime-node are looked for where the caller says.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import onnxruntime

from variants.errors import BuildError
from variants.runtime import ROWS_AT_ONCE, feed_of, run_logits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from variants.manifest import ModelManifest, VariantManifest
    from variants.recipe import Floats, Inputs

Runtime = Literal["onnxruntime-web", "onnxruntime-node"]
RUNTIMES: Final[tuple[Runtime, ...]] = ("onnxruntime-web", "onnxruntime-node")
PROVEN_AGREEMENT: Final = 0.999
NEAR: Final = 1e-3  # of the answers' range: values are the same within it
PROOF: Final = Path(__file__).with_name("edge_proof.mjs")
LIMIT_S: Final = 600
WIDE_PATHS: Final = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})


class EdgeError(BuildError):
    """A file cannot be converted, or a runtime cannot be asked."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a runtime answered, beside the runtime here on the same rows; ``problem`` says why it answered nothing."""

    runtime: Runtime
    version: str = ""
    rows: int = 0
    agreement: float = 0.0
    problem: str = ""
    was_tried: bool = True

    @property
    def is_proven(self) -> bool:
        """Tell whether it may be used there."""
        return not self.problem and self.agreement >= PROVEN_AGREEMENT


def convert(file: bytes) -> bytes:
    """Return an ONNX file in ONNX Runtime's own format, optimised for no processor in particular.

    Raises:
        EdgeError: The runtime refuses the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model.ort"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(target)
        options.add_session_config_entry("session.save_model_format", "ORT")
        options.log_severity_level = 3
        try:
            onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime raises a family of classes that share no public base
            raise EdgeError(f"cannot be converted: {str(error).splitlines()[0][:300]}") from error
        return target.read_bytes()


def prove(file: bytes, ort_file: bytes, rows: Inputs, packages: Path, *, is_classes: bool) -> tuple[Proof, ...]:
    """Answer ``rows`` (rows, ...) in every runtime of ``packages``, a folder with ``node_modules``, and compare."""
    expected = run_logits(file, rows)  # (rows, ...)
    return tuple(_prove(runtime, ort_file, (rows, expected), packages, is_classes) for runtime in RUNTIMES)


def _prove(runtime: Runtime, ort_file: bytes, known: tuple[Inputs, Floats], packages: Path, is_classes: bool) -> Proof:
    rows, expected = known
    node = shutil.which("node")
    if node is None:
        return Proof(runtime, problem="not tried: Node is not installed", was_tried=False)
    if not (packages / "node_modules" / runtime).is_dir():
        return Proof(runtime, problem=f"not tried: no node_modules/{runtime} there", was_tried=False)
    with tempfile.TemporaryDirectory() as folder:
        plan = _write_plan(Path(folder), runtime, ort_file, rows, packages.resolve())
        try:
            done = subprocess.run(  # noqa: S603 - our own script, and files that we wrote
                [node, str(PROOF), str(plan)], capture_output=True, text=True, timeout=LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return Proof(runtime, problem=f"no answer within {LIMIT_S} s")
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "Error" in line] or done.stderr.splitlines() or ["?"]
            return Proof(runtime, problem=f"refused: {lines[0].strip()[:300]}")
        answers = np.fromfile(Path(folder) / "answers", np.float32)
        version = json.loads(done.stdout.splitlines()[-1])["version"]
    if answers.size != expected.size:
        return Proof(runtime, version, problem=f"{answers.size} numbers where {expected.size} were expected")
    agreement = _agreement(expected, answers.reshape(expected.shape), is_classes=is_classes)
    return Proof(runtime, version, len(rows), agreement)


def _write_plan(folder: Path, runtime: Runtime, ort_file: bytes, rows: Inputs, packages: Path) -> Path:
    (folder / "model.ort").write_bytes(ort_file)
    name = onnxruntime.InferenceSession(ort_file, providers=["CPUExecutionProvider"]).get_inputs()[0].name
    batches = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        batch = {}
        for place, (field, values) in enumerate(feed_of(name, rows[start : start + ROWS_AT_ONCE]).items()):
            path = folder / f"rows-{start}-{place}"
            path.write_bytes(np.ascontiguousarray(values).tobytes())
            batch[field] = {"type": str(values.dtype), "shape": list(values.shape), "file": str(path)}
        batches.append(batch)
    plan = folder / "plan.json"
    content = {"packages": str(packages), "runtime": runtime, "model": str(folder / "model.ort")}
    plan.write_text(json.dumps({**content, "output": str(folder / "answers"), "batches": batches}), encoding="utf-8")
    return plan


def _agreement(expected: Floats, answers: Floats, *, is_classes: bool) -> float:
    if is_classes:
        return float((expected.argmax(1) == answers.argmax(1)).mean())
    near = np.abs(expected - answers) <= NEAR * max(float(np.ptp(expected)), NEAR)
    return float(near.reshape(len(near), -1).all(axis=1).mean())


def describe_edge(
    manifest: ModelManifest, files: Mapping[str, bytes], proofs: Mapping[str, tuple[Proof, ...]]
) -> dict[str, Any]:
    """Return ``edge.json``: every ``.ort`` file by variant, what was proven of it, and who may use which and why."""
    chosen = [variant for variant in manifest.published if variant.name in files]
    return {
        "model": manifest.model,
        "version": manifest.version,
        "inputs": [item.model_dump() for item in manifest.inputs],
        "outputs": [item.model_dump() for item in manifest.outputs],
        "labels": manifest.labels,
        "metric": manifest.metric,
        "converted_by": f"onnxruntime {onnxruntime.__version__}",
        "variants": {
            variant.name: {
                "tier": variant.tier,
                "file": f"{variant.name}.ort",
                "bytes": len(files[variant.name]),
                "sha256": hashlib.sha256(files[variant.name]).hexdigest(),
                "made_from_sha256": variant.sha256,
                "accuracy": variant.accuracy.value,
                "targets": [_tell(proof) for proof in proofs.get(variant.name, ())],
            }
            for variant in chosen
        },
        "classes": {
            name: {variant.name: _tell_use(*rule(variant, proofs.get(variant.name, ()))) for variant in chosen}
            for name, rule in CLASSES.items()
        },
    }


def _tell(proof: Proof) -> dict[str, Any]:
    if proof.problem:
        return {"runtime": proof.runtime, "proven": False, "reason": proof.problem}
    return {
        "runtime": f"{proof.runtime} {proof.version}",
        "proven": proof.is_proven,
        "rows": proof.rows,
        "argmax_agreement": proof.agreement,
    }


def _tell_use(is_safe: bool, reason: str) -> dict[str, Any]:
    return {"safe": is_safe, "reason": reason}


def _is_float(variant: VariantManifest) -> bool:
    return not set(variant.size.weight_bytes) & {"INT8", "UINT8"}


def _on_vnni(variant: VariantManifest, _: tuple[Proof, ...]) -> tuple[bool, str]:
    if _is_float(variant):
        return True, "floats"
    ran = sorted(WIDE_PATHS & set(variant.hardware.verified_isa))
    return True, f"measured on {ran[0]}" if ran else "adds products in 32 bits"


def _on_avx2(variant: VariantManifest, _: tuple[Proof, ...]) -> tuple[bool, str]:
    if _is_float(variant):
        return True, "floats"
    if "avx2" in variant.hardware.proven_isa:
        return True, "weights exclude saturation"
    found = variant.hardware.saturation
    if found is None:
        return False, "nothing is known of its answers where pairs of products saturate"
    lost = f"emulated saturation loses {100 * found.loss:.2f} points on {found.rows} rows"
    return found.verdict == "pass", lost


def _on_arm(variant: VariantManifest, _: tuple[Proof, ...]) -> tuple[bool, str]:
    if _is_float(variant):
        return True, "floats; not executed there"
    is_safe = bool(variant.hardware.proven_isa)
    return is_safe, "weights of 7 bits; not executed there" if is_safe else "not executed there, weights of 8 bits"


def _on_wasm(variant: VariantManifest, proofs: tuple[Proof, ...]) -> tuple[bool, str]:
    proof = next((item for item in proofs if item.runtime == "onnxruntime-web"), None)
    if proof is None or not proof.was_tried:
        return _on_arm(variant, proofs)
    share = proof.problem or f"{100 * proof.agreement:.2f} % of {proof.rows} rows answered alike"
    return proof.is_proven, f"onnxruntime-web {proof.version}: {share}"


def _on_webgpu(variant: VariantManifest, _: tuple[Proof, ...]) -> tuple[bool, str]:
    is_safe = _is_float(variant)
    return is_safe, "floats; not executed there" if is_safe else "int8 is answered wrongly by WebGPU"


CLASSES: Final = {
    "server-vnni": _on_vnni,
    "server-avx2": _on_avx2,
    "arm64": _on_arm,
    "browser-wasm": _on_wasm,
    "browser-webgpu": _on_webgpu,
    "mobile": _on_arm,
}
