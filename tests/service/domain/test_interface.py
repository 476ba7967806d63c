from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from service.domain.errors import InvalidRequest
from service.domain.inference import InferenceRequest, RequestedOutput
from service.domain.interface import check_request
from service.domain.tensors import Tensor, TensorSpec
from tests.builders import make_model, make_request

TWO_INPUTS = replace(make_model(), inputs=(TensorSpec("x", "FP32", (-1, 4)), TensorSpec("mask", "BOOL", (-1, 2))))


def x(rows: int = 1) -> Tensor:
    return Tensor("x", "FP32", np.zeros((rows, 4), dtype=np.float32))


def mask(rows: int = 1) -> Tensor:
    return Tensor("mask", "BOOL", np.zeros((rows, 2), dtype=np.bool_))


def request_of(*inputs: Tensor) -> InferenceRequest:
    return InferenceRequest("sums", "1", inputs)


@pytest.mark.parametrize("rows", [1, 5, 8])
def test_check_request_returns_the_rows_up_to_the_largest_batch(rows: int) -> None:
    assert check_request(make_model(), make_request(rows=rows)) == rows


@pytest.mark.parametrize("rows", [0, 9])
def test_check_request_refuses_no_rows_and_too_many(rows: int) -> None:
    with pytest.raises(InvalidRequest, match=f"has {rows} rows; model 'sums' takes 1 to 8"):
        check_request(make_model(), make_request(rows=rows))


def test_check_request_takes_inputs_in_any_order() -> None:
    assert check_request(TWO_INPUTS, request_of(mask(3), x(3))) == 3


def test_check_request_refuses_an_unknown_input_and_names_the_known() -> None:
    stranger = Tensor("z", "FP32", np.zeros((1, 4), dtype=np.float32))
    with pytest.raises(InvalidRequest, match="'z' is unknown or given twice; model 'sums' expects 'x', 'mask'"):
        check_request(TWO_INPUTS, request_of(x(), mask(), stranger))


def test_check_request_refuses_an_input_given_twice() -> None:
    with pytest.raises(InvalidRequest, match="'x' is unknown or given twice"):
        check_request(make_model(), request_of(x(), x()))


@pytest.mark.parametrize("inputs", [(), (x(),), (mask(),)])
def test_check_request_refuses_missing_inputs(inputs: tuple[Tensor, ...]) -> None:
    with pytest.raises(InvalidRequest, match="is missing"):
        check_request(TWO_INPUTS, request_of(*inputs))


def test_check_request_refuses_inputs_that_disagree_on_the_batch() -> None:
    with pytest.raises(InvalidRequest, match=r"must share the batch dimension; got 'x' \[2, 4\], 'mask' \[3, 2\]"):
        check_request(TWO_INPUTS, request_of(x(2), mask(3)))


def test_check_request_refuses_an_unknown_output_and_names_the_known() -> None:
    wanted = replace(make_request(), outputs=(RequestedOutput("y"), RequestedOutput("z")))
    with pytest.raises(InvalidRequest, match="output 'z' is unknown; model 'sums' returns 'y'"):
        check_request(make_model(), wanted)


def test_check_request_takes_a_known_output() -> None:
    assert check_request(make_model(), replace(make_request(), outputs=(RequestedOutput("y"),))) == 1
