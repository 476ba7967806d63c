"""An infer request's bytes, read in parts, say what protobuf reads in them as a whole."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from service.api.http_codec import RequestHead
from service.api.proto_codec import decode_request
from service.api.proto_message import InferMessage, read_message
from service.domain.errors import InvalidRequest

HEAD = RequestHead("digits", "made")


def request(raws: list[bytes], **more: Any) -> Any:  # noqa: ANN401 - the stubs ship no types
    message = service_pb2.ModelInferRequest(model_name="digits", **more)
    for index in range(max(1, len(raws))):
        message.inputs.add(name=f"x{index}", datatype="FP32", shape=[1, 2])
    message.raw_input_contents.extend(raws)
    return message


def again(message: InferMessage) -> Any:  # noqa: ANN401 - the stubs ship no types
    """Put the parts together."""
    found = service_pb2.ModelInferRequest()
    found.CopyFrom(message.said.proto)
    found.id = message.id
    if not found.raw_input_contents:
        found.raw_input_contents.extend(bytes(raw) for raw in message.raws)
    return found


def check(data: bytes) -> None:
    try:
        whole = service_pb2.ModelInferRequest.FromString(data)
    except DecodeError:
        with pytest.raises(InvalidRequest, match=rf"the message of {len(data)} bytes is no"):
            read_message(data)
        return
    assert again(read_message(data)) == whole


MESSAGES = [
    request([bytes(8)]),
    request([bytes(8), b"abcdefgh"], id="r1", model_version="3"),
    request([b"x" * 300], id="ü" * 70),
    request([]),
    request([b""], id="r1"),
    request([bytes(5000)] * 3, outputs=[service_pb2.ModelInferRequest.InferRequestedOutputTensor(name="y")]),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_parts_are_the_message(message: Any) -> None:  # noqa: ANN401 - the stubs ship no types
    check(message.SerializeToString())


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(MESSAGES), st.data())
def test_parts_of_damaged_bytes_are_what_protobuf_reads_of_them(message: Any, data: st.DataObject) -> None:  # noqa: ANN401
    spoilt = bytearray(message.SerializeToString()[:200])
    for _ in range(data.draw(st.integers(0, 3))):
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(spoilt))


@given(st.lists(st.binary(max_size=12), max_size=6))
def test_fields_in_any_order_are_what_protobuf_reads_of_them(pieces: list[bytes]) -> None:
    tags = (0x0A, 0x1A, 0x3A, 0x12)
    check(b"".join(bytes((tags[len(piece) % 4], len(piece))) + piece for piece in pieces))


@pytest.mark.parametrize(
    "data",
    [
        b"\x3a\x80",
        b"\x3a\x80\x80\x80\x80\x00",
        b"\x3a\x88\x00" + bytes(8),
        b"\x3a\x05abc",
        b"\x3a",
        b"\x1a\x02\xff\xfe\x3a\x00",
        b"\x1a\x01a\x1a\x01b\x3a\x00",
        b"\x3a\x01a\x0a\x01m\x3a\x01b",
        b"",
    ],
    ids=[
        "cut length", "long length", "length in more bytes than it takes", "cut contents", "tag alone",
        "id that is no text", "two ids", "contents in between", "nothing",
    ],
)  # fmt: skip
def test_odd_forms_are_what_protobuf_reads_of_them(data: bytes) -> None:
    check(data)


def test_raw_contents_are_views_of_what_came() -> None:
    data = bytearray(request([bytes(8)]).SerializeToString())
    message = read_message(memoryview(data))
    data[-1] = 1
    assert bytes(message.raws[0]) == bytes(7) + b"\1"


def test_what_was_read_before_is_known_again_whatever_its_id_and_contents() -> None:
    first, second = (
        read_message(request([bytes((index,)) * 8], id=name).SerializeToString())
        for index, name in enumerate(("a", "b"))
    )
    assert first.said is second.said
    assert [decode_request(message, HEAD, None).id for message in (first, second)] == ["a", "b"]
    values = [decode_request(message, HEAD, None).inputs[0].data.tobytes() for message in (first, second)]
    assert values == [bytes(8), b"\1" * 8]


def test_known_beginning_does_not_pass_for_other_contents() -> None:
    decode_request(read_message(request([bytes(8)]).SerializeToString()), HEAD, None)
    for raws, expected in (([bytes(8)] * 2, "2 raw_input_contents for 1"), ([bytes(7)], "has 7 bytes")):
        message = request([bytes(8)])
        del message.raw_input_contents[:]
        message.raw_input_contents.extend(raws)
        with pytest.raises(InvalidRequest, match=expected):
            decode_request(read_message(message.SerializeToString()), HEAD, None)
