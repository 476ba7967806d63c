"""A built model as a Triton model repository: one Triton model for each variant, named ``MODEL--VARIANT``.

That is also how this gateway names a variant, so that a remotes file needs no other name. Two forms::

    <output>/<model>--<variant>/config.pbtxt
                               /<version>/model.onnx            run by Triton's ONNX Runtime backend, or
                               /<version>/model.py, model.onnx  by its Python backend with the onnxruntime package

The configuration is made with Triton's own protobuf classes and written in protobuf's text format. It asks for dynamic
batching without a delay (what waits becomes a batch), and for so many instances, on CPUs or on GPUs. Triton cannot
batch tensors that have the batch alone as their dimension: such a model is given its batches as they come.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as triton

from service.engine.onnx_guard import refuse_outside_references
from service.engine.repository import read_onnx
from service.exports.writing import ExportError, write_folders
from service.policy.pools import pool_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.engine.repository import StoredModel
    from variants.manifest import ModelManifest, TensorInfo, VariantManifest

Form = Literal["onnx", "python"]
_BACKENDS: Final[dict[Form, str]] = {"onnx": "onnxruntime", "python": "python"}
_MODEL_PY: Final = Path(__file__).with_name("triton_model.py")
_NOT_IN_PYTHON: Final = ("BYTES", "BF16")


@dataclass(frozen=True, slots=True)
class TritonForm:
    """How Triton is to run the variants: ``instances`` of each, on GPUs or CPUs.

    ``site_packages`` is where the Python form finds numpy and onnxruntime, '' where its interpreter has them.
    """

    form: Form = "onnx"
    instances: int = 1
    on_gpu: bool = False
    site_packages: str = ""


def export_to_triton(
    stored: StoredModel, output: Path, how: TritonForm, variants: Sequence[str] = (), *, force: bool = False
) -> list[Path]:
    """Write the published variants, or those named, under ``output``; return their folders.

    Raises:
        ExportError: The model or a variant cannot be exported, or its folder is there already.
        BackendFailed: A variant's file is not the one of the manifest.
    """
    manifest, chosen = choose_variants(stored, variants)
    folders = {pool_name(manifest.model, item.name): _files(stored.folder, manifest, item, how) for item in chosen}
    write_folders(output, folders, force=force)
    return [output / name for name in folders]


def choose_variants(stored: StoredModel, variants: Sequence[str]) -> tuple[ModelManifest, tuple[VariantManifest, ...]]:
    """Return the manifest and the published variants, or those named.

    Raises:
        ExportError: The model cannot be exported, or has no such variant.
    """
    manifest = published_manifest(stored)
    chosen = tuple(item for item in manifest.published if not variants or item.name in variants)
    unknown = sorted(set(variants) - {item.name for item in chosen})
    if unknown:
        names = ", ".join(item.name for item in manifest.published)
        raise ExportError(f"model '{manifest.model}' has no variant {', '.join(unknown)}; published are {names}")
    return manifest, chosen


def published_manifest(stored: StoredModel) -> ModelManifest:
    """Return the manifest of a model that can be exported.

    Raises:
        ExportError: It cannot be read, or no variant of it is published.
    """
    if stored.manifest is None:
        raise ExportError(f"model '{stored.name}' in {stored.folder} cannot be exported: {stored.problem}")
    if not stored.manifest.published:
        raise ExportError(f"model '{stored.name}' has no published variant")
    return stored.manifest


def config(manifest: ModelManifest, variant: VariantManifest, how: TritonForm) -> str:
    """Return the ``config.pbtxt`` of one variant."""
    kind = triton.ModelInstanceGroup.KIND_GPU if how.on_gpu else triton.ModelInstanceGroup.KIND_CPU
    is_batched = all(len(item.shape) > 1 for item in (*manifest.inputs, *manifest.outputs))
    skipped = 1 if is_batched else 0  # Triton puts the batch before the dimensions where it knows of batches
    return str(
        text_format.MessageToString(
            triton.ModelConfig(
                name=pool_name(manifest.model, variant.name),
                backend=_BACKENDS[how.form],
                default_model_filename="model.py" if how.form == "python" else "model.onnx",
                max_batch_size=manifest.max_batch_size if is_batched else 0,
                input=[triton.ModelInput(**_tensor(item, skipped)) for item in manifest.inputs],
                output=[triton.ModelOutput(**_tensor(item, skipped)) for item in manifest.outputs],
                dynamic_batching=triton.ModelDynamicBatching() if is_batched else None,
                instance_group=[triton.ModelInstanceGroup(kind=kind, count=how.instances)],
            )
        )
    )


def _files(folder: Path, manifest: ModelManifest, variant: VariantManifest, how: TritonForm) -> dict[str, bytes]:
    content, _ = read_onnx(folder, variant)
    refuse_outside_references(content)
    files = {"config.pbtxt": config(manifest, variant, how).encode(), f"{manifest.version}/model.onnx": content}
    if how.form == "python":
        odd = [item.name for item in (*manifest.inputs, *manifest.outputs) if item.datatype in _NOT_IN_PYTHON]
        if odd:
            raise ExportError(f"{', '.join(odd)}: BYTES and BF16 need the form onnx")
        files[f"{manifest.version}/model.py"] = _model_py(how.site_packages).encode()
    return files


def _model_py(site_packages: str) -> str:
    """Return the Python form's code: Triton isolates its interpreter, which finds packages by the path alone."""
    code = _MODEL_PY.read_text(encoding="utf-8")
    if not site_packages:
        return code
    path = f"import sys\n\nsys.path.insert(0, {site_packages!r})\n\nfrom pathlib import Path\n"
    return code.replace("from pathlib import Path\n", path, 1)


def _tensor(info: TensorInfo, skipped: int) -> dict[str, Any]:
    name = "STRING" if info.datatype == "BYTES" else info.datatype
    return {"name": info.name, "data_type": triton.DataType.Value(f"TYPE_{name}"), "dims": info.shape[skipped:]}
