"""Read an ONNX file that was trained elsewhere, and refuse in one sentence what cannot be served.

A message names the file and the node, input, output or axis, says what was expected, and how to get it. What can be
mended without changing an answer is: weights kept in other files are taken in, a batch of fixed size is freed where the
graph allows it, and the first output of real numbers is put first, where the gateway looks for the answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper

from variants.errors import RecipeError
from variants.interface import DATATYPES, graph_inputs
from variants.runtime import blank, open_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BATCH: Final = "batch"
STANDARD: Final = frozenset({"", "ai.onnx"})
ALLOWED_DOMAINS: Final = (*sorted(STANDARD), "ai.onnx.ml", "com.microsoft")
"""As the gateway's own check (``service.engine.onnx_guard``); a test holds the two together."""
REALS: Final = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE})
MOST_BYTES: Final = 2**31 - 1
POINTER: Final = b"version https://git-lfs"
FREE_BATCH: Final = "export it with a batch of any size, in torch: dynamic_shapes=({0: torch.export.Dim('batch')},)"


def read_model(path: Path, fixed: Mapping[str, int]) -> bytes:
    """Return the file's bytes as they will be served; ``fixed`` gives axes beside the batch their size, by name.

    Raises:
        RecipeError: It cannot be read, or cannot be served as it is.
    """
    model = _parse(path)
    _take_weights_in(model, path)
    _check_operators(model, path)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise RecipeError(f"'{path}' is not a valid ONNX model: {_first_words(error)}") from error
    _check_inputs(model, path)
    _put_answer_first(model, path)
    _fix_axes(model, path, fixed)
    return _free_batch(model, path)


def _parse(path: Path) -> onnx.ModelProto:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"cannot read the model '{path}': {error.strerror}") from error
    if content.startswith(POINTER):
        raise RecipeError(f"'{path}' is a Git LFS pointer, not the model itself; get the model with: git lfs pull")
    try:
        model = onnx.load_from_string(content)
    except DecodeError as error:
        raise RecipeError(f"'{path}' is not an ONNX file, or was cut off: {_first_words(error)}") from error
    if not model.graph.node:
        raise RecipeError(f"'{path}' is not an ONNX file, or is an empty one: it has no nodes")
    return model


def _take_weights_in(model: onnx.ModelProto, path: Path) -> None:
    """Load weights that are kept in files beside the model, so that one file is whole in itself."""
    outside = [tensor for tensor in _tensors(model.graph) if external_data_helper.uses_external_data(tensor)]
    files: set[Path] = set()
    for tensor in outside:
        location = external_data_helper.ExternalDataInfo(tensor).location
        if Path(location).is_absolute() or ".." in Path(location).parts:
            raise RecipeError(f"'{path}' keeps weight '{tensor.name}' in '{location}'; only a file beside it is read")
        file = path.parent / location
        if not file.is_file():
            raise RecipeError(
                f"'{path}' keeps weight '{tensor.name}' in '{location}', which is not beside it in '{path.parent}'; "
                "copy that file there too"
            )
        files.add(file)
    total = model.ByteSize() + sum(file.stat().st_size for file in files)
    if total > MOST_BYTES:
        raise RecipeError(f"'{path}' has {total / 2**30:.1f} GiB of weights; an ONNX file that is whole has at most 2")
    if outside:
        try:
            external_data_helper.load_external_data_for_model(model, str(path.parent))
        except (onnx.checker.ValidationError, OSError, ValueError) as error:
            raise RecipeError(f"the weights beside '{path}' cannot be read: {_first_words(error)}") from error


def _check_operators(model: onnx.ModelProto, path: Path) -> None:
    versions = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    own = {(function.domain, function.name) for function in model.functions}
    for node in _nodes(model.graph):
        if (node.domain, node.op_type) in own:
            continue
        place = f"node '{node.name or node.output[0]}' of '{path}'"
        if node.domain not in ALLOWED_DOMAINS:
            raise RecipeError(
                f"{place} uses operator '{node.op_type}' of domain '{node.domain}', which needs a library of its own; "
                f"allowed are standard operators and those of {', '.join(ALLOWED_DOMAINS[2:])}"
            )
        if node.domain in STANDARD and not onnx.defs.has(node.op_type, versions.get("ai.onnx", 1), ""):
            raise RecipeError(
                f"{place} uses operator '{node.op_type}', which ONNX opset {versions.get('ai.onnx', 1)} does not have; "
                "export with another opset, or without that operator"
            )


def _check_inputs(model: onnx.ModelProto, path: Path) -> None:
    values = graph_inputs(model.graph)
    if not values:
        raise RecipeError(f"'{path}' takes no input: there is nothing that a request could send")
    for value in values:
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type") or kind.elem_type not in DATATYPES:
            raise RecipeError(f"input '{value.name}' of '{path}' is no tensor of numbers; only such can be served")
        if kind.elem_type == onnx.TensorProto.STRING:
            raise RecipeError(
                f"input '{value.name}' of '{path}' takes text; models of numbers can be built: export the part after "
                "tokenising, and let clients send token numbers"
            )
        if not kind.shape.dim:
            raise RecipeError(f"input '{value.name}' of '{path}' has no batch axis; rows are stacked along the first")


def _put_answer_first(model: onnx.ModelProto, path: Path) -> None:
    """Put the first output of real numbers first; the others stay in their order."""
    outputs, graph = list(model.graph.output), model.graph
    for value in outputs:
        if not value.type.HasField("tensor_type"):
            maker = next((node for node in graph.node if value.name in node.output), None)
            by = "" if maker is None else f" by node '{maker.name}' ({maker.op_type})"
            raise RecipeError(
                f"output '{value.name}' of '{path}' is made{by} and is no tensor; a scikit-learn model is converted "
                "with options={'zipmap': False}"
            )
    answers = [value for value in outputs if value.type.tensor_type.elem_type in REALS]
    if not answers:
        raise RecipeError(
            f"'{path}' has no output of real numbers, only {', '.join(value.name for value in outputs)}; variants are "
            "compared by scores or values, so export those too"
        )
    rest = [value for value in outputs if value is not answers[0]]
    del graph.output[:]
    graph.output.extend([answers[0], *rest])


def _fix_axes(model: onnx.ModelProto, path: Path, fixed: Mapping[str, int]) -> None:
    """Give every axis of an input beside the batch one size."""
    axes = {_axis(value, place): dim for value, place, dim in _dims(model)}
    unknown = sorted(set(fixed) - set(axes) - {dim.dim_param for dim in axes.values()})
    if unknown:
        known = ", ".join(dim.dim_param or name for name, dim in axes.items() if not dim.dim_value) or "none to fix"
        raise RecipeError(f"'{path}' has no axis '{unknown[0]}' to fix; its axes beside the batch are: {known}")
    for value, place, dim in _dims(model):
        name = dim.dim_param or _axis(value, place)
        size = fixed.get(name, fixed.get(_axis(value, place), 0))
        if size:
            dim.dim_value = size
        if dim.dim_value <= 0:
            raise RecipeError(
                f"axis {place} ('{name}') of input '{value.name}' of '{path}' may have any size; beside the batch, "
                f"sizes must be one, as requests are run together: choose one with --fix {name}=128, say"
            )


def _free_batch(model: onnx.ModelProto, path: Path) -> bytes:
    """Return the model with a batch of any size; where its export fixed one, try whether the graph needs it."""
    was = {value.name: value.type.tensor_type.shape.dim[0].dim_value for value in graph_inputs(model.graph)}
    for value in (*graph_inputs(model.graph), *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims:
            dims[0].dim_param = BATCH
    model.graph.ClearField("value_info")
    data: bytes = model.SerializeToString(deterministic=True)
    try:
        session = open_session(data)
    except Exception as error:  # the runtime raises a family of classes that share no public base
        raise RecipeError(f"ONNX Runtime refuses '{path}': {_first_words(error)}") from error
    for name, size in was.items():
        if size and not _runs(session, size + 1):
            raise RecipeError(f"input '{name}' of '{path}' takes exactly {size} rows at once; {FREE_BATCH}")
    return data


def _runs(session: Any, rows: int) -> bool:  # noqa: ANN401 - onnxruntime ships no types
    try:
        outputs = session.run(None, {value.name: blank(value, rows) for value in session.get_inputs()})
    except Exception:  # noqa: BLE001 - as above; that it fails is the answer
        return False
    return all(len(output) == rows for output in outputs)


def _dims(model: onnx.ModelProto) -> Iterator[tuple[onnx.ValueInfoProto, int, Any]]:
    """Yield every axis beside the batch with its input and place."""
    for value in graph_inputs(model.graph):
        for place, dim in enumerate(value.type.tensor_type.shape.dim):
            if place:
                yield value, place, dim


def _axis(value: onnx.ValueInfoProto, place: int) -> str:
    return f"{value.name}.{place}"


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _nodes(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in _nodes(graph):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from attribute.g.initializer


def _first_words(error: BaseException) -> str:
    """Return the first line that says something, without the runtime's prefix."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].split(" : ", 2)[-1][:300] if lines else type(error).__name__
