from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.errors import InvalidRequest
from service.domain.tensors import DTYPES, MAX_ELEMENTS, MAX_RANK, Tensor, TensorSpec, dtype_of, element_count

PROTOCOL_DATATYPES = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "FP32": 4,
    "FP64": 8,
    "BF16": 2,
}


@pytest.mark.parametrize(("datatype", "size"), PROTOCOL_DATATYPES.items())
def test_dtype_of_gives_the_protocols_width_for_every_datatype(datatype: str, size: int) -> None:
    assert dtype_of(datatype, "x").itemsize == size


def test_dtypes_name_the_whole_protocol_and_no_more() -> None:
    assert set(DTYPES) == {*PROTOCOL_DATATYPES, "BYTES"}


def test_dtype_of_gives_objects_for_bytes() -> None:
    assert dtype_of("BYTES", "x") == np.dtype(np.object_)


@pytest.mark.parametrize("datatype", ["", "fp32", "FP8", "STRING", "FP32 "])
def test_dtype_of_refuses_a_datatype_naming_it_and_the_allowed_ones(datatype: str) -> None:
    with pytest.raises(InvalidRequest, match=f"'x' has datatype {datatype!r}; allowed are BF16, BOOL"):
        dtype_of(datatype, "x")


def test_dtype_of_refuses_a_datatype_that_is_no_text() -> None:
    with pytest.raises(InvalidRequest, match="allowed are"):
        dtype_of(["FP32"], "x")  # type: ignore[arg-type] # what a JSON body may hold


@pytest.mark.parametrize(("shape", "count"), [((), 1), ((1,), 1), ((2, 3), 6), ((1,) * MAX_RANK, 1)])
def test_element_count_multiplies_the_dimensions(shape: tuple[int, ...], count: int) -> None:
    assert element_count(shape, "x") == count


def test_element_count_allows_exactly_the_largest_product() -> None:
    assert element_count((MAX_ELEMENTS,), "x") == MAX_ELEMENTS


@pytest.mark.parametrize("shape", [(16, 2**60 + 2), (2**32, 2**32), (MAX_ELEMENTS + 1,), (2**16, 2**16)])
def test_element_count_refuses_products_that_overflow_a_machine_word_or_the_limit(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest, match="more than 2147483648 elements"):
        element_count(shape, "x")


@pytest.mark.parametrize("shape", [(0,), (1, 0), (-1, 4), (2, -(2**63))])
def test_element_count_refuses_zero_and_negative_dimensions(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest, match="every dimension must be at least 1"):
        element_count(shape, "x")


def test_element_count_refuses_too_many_dimensions() -> None:
    with pytest.raises(InvalidRequest, match="has 17 dimensions; at most 16"):
        element_count((1,) * 17, "x")


@given(st.lists(st.integers(-3, 2**40), max_size=20))
def test_element_count_is_exact_or_refuses(shape: list[int]) -> None:
    allowed = len(shape) <= MAX_RANK and all(dim > 0 for dim in shape) and math.prod(shape) <= MAX_ELEMENTS
    try:
        counted = element_count(shape, "x")
    except InvalidRequest:
        counted = None
    assert counted == (math.prod(shape) if allowed else None)


def tensor(shape: tuple[int, ...], datatype: str = "FP32") -> Tensor:
    return Tensor("x", datatype, np.zeros(shape, dtype=DTYPES[datatype]))


@pytest.mark.parametrize("shape", [(1, 4), (7, 4)])
def test_spec_takes_any_size_where_it_says_minus_one(shape: tuple[int, ...]) -> None:
    found = tensor(shape)
    TensorSpec("x", "FP32", (-1, 4)).check(found, "sums")
    assert found.shape == shape


@pytest.mark.parametrize("shape", [(), (4,), (1, 5), (1, 4, 1), (1, 1)])
def test_spec_refuses_another_rank_or_dimension_with_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest, match=r"'x' has shape \[.*\]; model 'sums' expects \[-1, 4\]"):
        TensorSpec("x", "FP32", (-1, 4)).check(tensor(shape), "sums")


def test_spec_refuses_another_datatype_of_the_same_width() -> None:
    with pytest.raises(InvalidRequest, match="'x' has datatype UINT16; model 'sums' expects BF16"):
        TensorSpec("x", "BF16", (-1, 4)).check(tensor((1, 4), "UINT16"), "sums")
