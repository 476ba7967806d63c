from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from service.api.json_data import decode_data
from service.domain.errors import InvalidRequest

MANY = 30_000


def decoded(values: list[Any], datatype: str = "FP32") -> np.ndarray[Any, Any]:
    return decode_data(json.dumps(values).encode(), datatype, (len(values),), "$.data")


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_long_lists_of_floats_are_read_as_short_ones_are(datatype: str) -> None:
    rng = np.random.default_rng(0)
    values = [*(rng.standard_normal(MANY) * 10.0 ** rng.integers(-30, 30, MANY)).tolist(), 0, -7, 2**60, -0.0, 1e-320]
    rng.shuffle(values)
    found = decoded(values, datatype)
    short = [decoded(values[place : place + 100], datatype) for place in range(0, len(values), 100)]
    assert found.dtype == short[0].dtype
    assert found.tobytes() == np.concatenate(short).tobytes()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("1.5", "got `str`"),
        (True, "got `bool`"),
        (None, "got `null`"),
        ({}, "got `object`"),
        (1e39, "Expected `float` <"),
        (-1e300, "Expected `float` >"),
    ],
)
@pytest.mark.parametrize("place", [0, 12_345, MANY - 1])
def test_what_is_wrong_in_a_long_list_is_named(wrong: object, message: str, place: int) -> None:
    values: list[object] = [0.5] * MANY
    values[place] = wrong
    with pytest.raises(InvalidRequest) as caught:
        decoded(values)
    assert f"$.data[{place}]" in str(caught.value)
    assert message in str(caught.value)


def test_doubles_beyond_float32_stay_doubles() -> None:
    values = [1e300, -1e300] * MANY
    assert decoded(values, "FP64").tolist() == values


def test_a_list_within_a_long_list_is_not_flattened() -> None:
    values: list[object] = [0.5] * MANY
    values[MANY // 2] = [0.5]
    with pytest.raises(InvalidRequest, match="not nested as shape"):
        decoded(values)


def test_text_that_is_no_number_is_refused_in_a_long_list() -> None:
    for wrong in (b"01", b"1.", b"NaN", b"1e999", b"0x10", b"+1"):
        text = b"[" + b"0.5," * MANY + wrong + b"]"
        with pytest.raises(InvalidRequest, match=r"\$\.data"):
            decode_data(text, "FP32", (MANY + 1,), "$.data")
