"""``tiergate export``: hand a built model to another runtime."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from service.bento_store import StoredBento
    from service.engine.repository import StoredModel

_REFUSED: Final = 2


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``export``."""
    parser = subparsers.add_parser(
        "export",
        help="hand a built model to another runtime",
        description="Verify a model's newest version and hand it to another runtime. bento: with every variant and its "
        "report into the BentoML model store, as one model that `tiergate serve bento:NAME` and a bento can use. "
        "triton: a Triton model repository with one model MODEL--VARIANT for each variant. kserve: a ServingRuntime "
        "and an InferenceService. edge: .ort files for devices, and which class of hardware may use which.",
    )
    parser.add_argument("model", metavar="MODEL", help="name of a model in the repository")
    parser.add_argument("--to", required=True, choices=tuple(_TARGETS), help="where to")
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("repository"),
        metavar="FOLDER",
        help="folder of built models (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--name", default="", help="bento and kserve: name over there (default: the model's own)")
    written = parser.add_argument_group("triton, kserve and edge")
    written.add_argument("--output", type=Path, metavar="FOLDER", help="where to write (default: the target's name)")
    written.add_argument("--force", action="store_true", help="replace what is there")
    _add_triton(parser.add_argument_group("triton"))
    _add_kserve(parser.add_argument_group("kserve"))
    edge = parser.add_argument_group("edge")
    edge.add_argument("--rows", type=Path, metavar="FILE", help="rows to prove variants with, from `tiergate rows`")
    edge.add_argument(
        "--node", type=Path, metavar="FOLDER", help="whose node_modules has onnxruntime-web and onnxruntime-node"
    )
    parser.set_defaults(run=_export)


def _add_triton(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--variant", action="append", default=[], metavar="NAME", help="only this one; may be repeated")
    group.add_argument(
        "--form",
        choices=("onnx", "python"),
        default="onnx",
        help="onnx: Triton's ONNX Runtime backend; python: its Python backend (default: %(default)s)",
    )
    group.add_argument("--instances", type=int, default=1, metavar="N", help="of each variant (default: %(default)s)")
    group.add_argument("--gpu", action="store_true", help="instances on GPUs instead of CPUs; form onnx only")
    group.add_argument(
        "--site-packages",
        default="",
        metavar="FOLDER",
        help="form python: where Triton's interpreter finds numpy and onnxruntime (default: in itself)",
    )


def _add_kserve(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--storage-uri", default="", metavar="URI", help="where KServe finds the repository; needed")
    group.add_argument("--image", default="tiergate:latest", help="the gateway's image (default: %(default)s)")
    group.add_argument("--cpus", type=int, default=2, metavar="N", help="cores of a replica (default: %(default)s)")


def _export(parsed: argparse.Namespace) -> int:
    from service.bento_store import BentoError
    from service.domain.errors import BackendFailed
    from service.engine.repository import Repository
    from service.exports.writing import ExportError

    try:
        result, text = _TARGETS[parsed.to](parsed, Repository(parsed.repository).find(parsed.model))
    except (BentoError, BackendFailed, ExportError) as error:
        print(f"tiergate export: {error}", file=sys.stderr)
        return _REFUSED
    print(json.dumps(result, indent=2) if parsed.json else text)
    return 0


def _to_bento(parsed: argparse.Namespace, model: StoredModel) -> tuple[dict[str, Any], str]:
    from service.bento_store import export_model

    stored = export_model(model, parsed.name)
    return _as_json(stored), _as_text(stored)


def _to_triton(parsed: argparse.Namespace, model: StoredModel) -> tuple[dict[str, Any], str]:
    from service.exports.triton import TritonForm, export_to_triton
    from service.exports.writing import ExportError

    if parsed.instances < 1:
        raise ExportError(f"--instances is {parsed.instances}; at least 1 is allowed")
    if parsed.gpu and parsed.form == "python":
        raise ExportError("--gpu needs --form onnx: the Python form computes on CPUs")
    output = parsed.output or Path("triton")
    how = TritonForm(parsed.form, parsed.instances, parsed.gpu, parsed.site_packages)
    folders = export_to_triton(model, output, how, parsed.variant, force=parsed.force)
    lines = [*map(str, folders), f"next: tritonserver --model-repository={output}"]
    return {"repository": str(output), "models": [folder.name for folder in folders]}, "\n".join(lines)


def _to_kserve(parsed: argparse.Namespace, model: StoredModel) -> tuple[dict[str, Any], str]:
    from service.exports.kserve import KServeForm, export_to_kserve
    from service.exports.triton import published_manifest
    from service.exports.writing import ExportError

    if not parsed.storage_uri:
        raise ExportError("--to kserve needs --storage-uri: where KServe finds the repository, such as pvc://models/")
    if parsed.cpus < 1:
        raise ExportError(f"--cpus is {parsed.cpus}; at least 1 is allowed")
    how = KServeForm(parsed.storage_uri, parsed.image, parsed.cpus, parsed.name)
    manifest, output = published_manifest(model), parsed.output or Path("kserve")
    files = export_to_kserve(manifest, output, how, force=parsed.force)
    lines = [*map(str, files), "next: " + " ".join(["kubectl apply", *(f"-f {file}" for file in files)])]
    return {"files": list(map(str, files))}, "\n".join(lines)


def _to_edge(parsed: argparse.Namespace, model: StoredModel) -> tuple[dict[str, Any], str]:
    from service.engine.repository import read_onnx
    from service.exports.triton import choose_variants
    from service.exports.writing import ExportError, write_folders
    from variants.edge import convert, describe_edge, prove
    from variants.errors import BuildError
    from variants.sources.arrays import read_arrays, take_inputs

    if (parsed.rows is None) != (parsed.node is None):
        raise ExportError("--rows and --node go together: rows to answer, and where the runtimes are that answer them")
    manifest, chosen = choose_variants(model, parsed.variant)
    files, proofs, output = {}, {}, parsed.output or Path("edge")
    try:
        for variant in chosen:
            file, _ = read_onnx(model.folder, variant)
            files[variant.name] = convert(file)
            if parsed.rows is not None:
                rows = take_inputs(read_arrays(parsed.rows), manifest.inputs, parsed.rows)
                is_classes = manifest.task == "classification"
                proofs[variant.name] = prove(file, files[variant.name], rows, parsed.node, is_classes=is_classes)
    except BuildError as error:
        raise ExportError(str(error)) from None
    told = describe_edge(manifest, files, proofs)
    content = {f"{name}.ort": file for name, file in files.items()}
    content["edge.json"] = json.dumps(told, indent=2).encode() + b"\n"
    write_folders(output, {manifest.model: content}, force=parsed.force)
    return {"folder": str(output / manifest.model), **told}, _edge_text(output / manifest.model, told)


def _edge_text(folder: Path, told: dict[str, Any]) -> str:
    lines = [f"{folder}: {len(told['variants'])} .ort files and edge.json"]
    for name, uses in told["classes"].items():
        safe = [variant for variant, use in uses.items() if use["safe"]]
        lines.append(f"{name:<15} {', '.join(safe) or 'none'}")
    tried = [proof for item in told["variants"].values() for proof in item["targets"]]
    if not tried:
        lines.append("not executed in any runtime of devices; give --rows and --node to prove variants there")
    lines += sorted({f"{item['runtime']}: {item['reason']}" for item in tried if "reason" in item})
    return "\n".join(lines)


_TARGETS: Final[dict[str, Callable[[argparse.Namespace, StoredModel], tuple[dict[str, Any], str]]]] = {
    "bento": _to_bento,
    "triton": _to_triton,
    "kserve": _to_kserve,
    "edge": _to_edge,
}


def _as_json(stored: StoredBento) -> dict[str, object]:
    manifest = stored.manifest
    return {
        "tag": stored.tag,
        "is_new": stored.is_new,
        "model": manifest.model,
        "version": manifest.version,
        "build_key": manifest.build_key,
        "variants": [variant.name for variant in manifest.published],
        "repository": str(stored.repository),
    }


def _as_text(stored: StoredBento) -> str:
    manifest = stored.manifest
    size_mb = sum(variant.size.file_bytes for variant in manifest.published) / 1e6
    what = f"{manifest.model} version {manifest.version} ({len(manifest.published)} variants, {size_mb:.1f} MB)"
    how = "is in the BentoML model store as" if stored.is_new else "was in the BentoML model store already as"
    return f"{what} {how} {stored.tag}\nnext: tiergate serve bento:{stored.tag}"
