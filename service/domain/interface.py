"""Does a request fit a model's interface?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.domain.errors import InvalidRequest

if TYPE_CHECKING:
    from service.domain.inference import InferenceRequest
    from service.domain.variants import ModelInfo


def check_request(model: ModelInfo, request: InferenceRequest) -> int:
    """Check every input and output name, type and shape; return the number of rows, the batch dimension.

    Raises:
        InvalidRequest: Something is unknown, missing, of another type or shape, or the batch is too large.
    """
    if len(request.inputs) == len(model.inputs) == 1 and request.inputs[0].name == model.inputs[0].name:
        model.inputs[0].check(request.inputs[0], model.name)
        if request.outputs:
            _check_outputs(model, request)
        return _row_count(model, request.inputs[0].data.shape[0])
    specs = {spec.name: spec for spec in model.inputs}
    for tensor in request.inputs:
        spec = specs.pop(tensor.name, None)
        if spec is None:
            raise InvalidRequest(
                f"input '{tensor.name}' is unknown or given twice; model '{model.name}' expects "
                f"{', '.join(repr(item.name) for item in model.inputs)}"
            )
        spec.check(tensor, model.name)
    if specs:
        raise InvalidRequest(f"input {', '.join(map(repr, specs))} of model '{model.name}' is missing")
    _check_outputs(model, request)
    return _rows(model, request)


def _check_outputs(model: ModelInfo, request: InferenceRequest) -> None:
    known = [spec.name for spec in model.outputs]
    for wanted in request.outputs:
        if wanted.name not in known:
            raise InvalidRequest(
                f"output '{wanted.name}' is unknown; model '{model.name}' returns {', '.join(map(repr, known))}"
            )


def _rows(model: ModelInfo, request: InferenceRequest) -> int:
    rows: set[int] = {tensor.data.shape[0] for tensor in request.inputs}
    if len(rows) != 1:
        shapes = ", ".join(f"'{tensor.name}' {list(tensor.shape)}" for tensor in request.inputs)
        raise InvalidRequest(f"inputs of model '{model.name}' must share the batch dimension; got {shapes}")
    return _row_count(model, rows.pop())


def _row_count(model: ModelInfo, count: int) -> int:
    if not 1 <= count <= model.max_batch_size:
        raise InvalidRequest(
            f"the batch has {count} rows; model '{model.name}' takes 1 to {model.max_batch_size} in one request"
        )
    return count
