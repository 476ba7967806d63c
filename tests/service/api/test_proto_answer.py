"""The bytes of an answer are those that protobuf reads as that answer."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from service.api.answers import Fixed, Parameter, Story, metadata_of
from service.api.proto_answer import encode_response, encode_stream_response
from service.domain.inference import Answer, InferenceResponse, Reason
from service.domain.tensors import Tensor

ANSWER = Answer("full", "full", Reason.WITHIN_BUDGET, 0.001, 0.0, 0.0005, 0.0021, 0.1, True, 0.9, claimed_s=1234.5)
NAMES = st.text(max_size=200)


@given(NAMES, NAMES, NAMES, NAMES, st.lists(st.integers(0, 300), min_size=1, max_size=3))
def test_answer_is_what_protobuf_reads_of_it(model: str, version: str, name: str, text: str, shape: list[int]) -> None:
    data = np.zeros([*shape, 0], np.float32) if np.prod(shape) > 10_000 else np.ones(shape, np.float32)
    response = InferenceResponse(model, version, text, (Tensor(name, "FP32", data), Tensor("y", "FP32", data)), ANSWER)
    words = (Parameter("tier", text, str), Parameter("budget_met", "false", bool), Parameter("a", "true", bool))
    answer = encode_response(response, Fixed(words, ()), [("queue_ms", b"0.5")])
    read = service_pb2.ModelInferResponse.FromString(answer)
    expected = service_pb2.ModelInferResponse(model_name=model, model_version=version, id=text)
    expected.parameters["tier"].string_param = text
    expected.parameters["budget_met"].bool_param = False
    expected.parameters["a"].bool_param = True
    expected.parameters["queue_ms"].string_param = "0.5"
    for output in (name, "y"):
        expected.outputs.add(name=output, datatype="FP32", shape=data.shape)
        expected.raw_output_contents.append(data.tobytes())
    assert read == expected


def test_story_of_an_answer_is_in_its_parameters_and_in_its_metadata() -> None:
    story = Story(ANSWER)
    response = InferenceResponse("digits", "1", "r1", (), ANSWER)
    read = service_pb2.ModelInferResponse.FromString(encode_response(response, story.fixed(), story.numbers()))
    told = {
        name: value.bool_param if value.HasField("bool_param") else value.string_param
        for name, value in read.parameters.items()
    }
    assert told == {
        "variant": "full",
        "tier": "full",
        "reason": "within_budget",
        "predicted_ms": "1.000",
        "predicted_p99_ms": "1234500.000",
        "queue_ms": "0.000",
        "compute_ms": "0.500",
        "total_ms": "2.100",
        "budget_met": True,
        "expected_accuracy": "0.9",
    }
    pairs = (*story.fixed().metadata, *metadata_of(story.numbers()))
    metadata = {name.decode(): value.decode() for name, value in pairs}
    assert metadata == {
        f"x-tiergate-{name.replace('_', '-')}": "true" if value is True else value for name, value in told.items()
    }


def test_answer_of_a_stream_holds_the_answer() -> None:
    answer = service_pb2.ModelInferResponse(model_name="digits", id="x" * 200)
    read = service_pb2.ModelStreamInferResponse.FromString(encode_stream_response(answer.SerializeToString()))
    assert (read.infer_response, read.error_message) == (answer, "")
