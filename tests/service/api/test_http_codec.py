"""Requests with the same JSON before their raw tensors share what was read of it, and nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from service.api.http_codec import RequestHead, decode_request
from service.domain.errors import InvalidRequest

if TYPE_CHECKING:
    from service.domain.inference import InferenceRequest


def ask(said: dict[str, object], raw: bytes, head: RequestHead | None = None) -> InferenceRequest:
    text = json.dumps(said).encode()
    return decode_request(text + raw, len(text), head or RequestHead("m", "fresh"))


def one_input(**more: object) -> dict[str, object]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
    return {"inputs": [tensor], **more}


@pytest.mark.parametrize("padding", [0, 2000], ids=["short", "long"])
def test_each_request_has_its_own_tensors_id_and_knobs_behind_the_same_json(padding: int) -> None:
    said = one_input(parameters={"binary_data_output": True, "note": "x" * padding})
    raws = [np.array(row, dtype=np.float32).tobytes() for row in ([1, 2], [3, 4])]
    heads = [RequestHead("m", "a"), RequestHead("n", "b", knob_headers={"x-latency-budget-ms": "5"})]
    first, second = (ask(said, raw, head) for raw, head in zip(raws, heads, strict=True))
    assert [first.inputs[0].data.tolist(), second.inputs[0].data.tolist()] == [[[1, 2]], [[3, 4]]]
    assert [(item.model, item.id, item.knobs.budget_s) for item in (first, second)] == [
        ("m", "a", None),
        ("n", "b", 0.005),
    ]
    assert first.binary_outputs
    assert second.binary_outputs


def test_ids_and_knobs_that_the_json_says_are_each_requests_own() -> None:
    found = [
        ask(one_input(id=name, parameters={"latency_budget_ms": ms}), bytes(8)) for name, ms in (("a", 5), ("b", 6))
    ]
    assert [(item.id, item.knobs.budget_s) for item in found] == [("a", 0.005), ("b", 0.006)]


def test_json_that_was_refused_is_refused_again_and_sizes_are_checked_each_time() -> None:
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="binary_data_size 8, but only 4 bytes"):
            ask(one_input(), bytes(4))
        with pytest.raises(InvalidRequest, match="9 bytes of binary data; its inputs' binary_data_size sum to 8"):
            ask(one_input(), bytes(9))
        with pytest.raises(InvalidRequest, match="latency_budget_ms"):
            ask(one_input(parameters={"latency_budget_ms": "soon"}), bytes(8))
        with pytest.raises(InvalidRequest, match="no inputs"):
            ask({"inputs": []}, b"")
    assert ask(one_input(), bytes(8)).inputs[0].data.shape == (1, 2)


def test_data_as_json_beside_raw_tensors_is_read_for_each_request() -> None:
    said = one_input()
    said["inputs"] = [*said["inputs"], {"name": "y", "datatype": "INT64", "shape": [1], "data": [7]}]  # type: ignore[misc]
    first, second = ask(said, bytes(8)), ask(said, bytes(8))
    assert first.inputs[1].data.tolist() == second.inputs[1].data.tolist() == [7]
    assert not np.shares_memory(first.inputs[1].data, second.inputs[1].data)
