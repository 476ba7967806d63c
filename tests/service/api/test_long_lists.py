"""Long lists of numbers are cut out of a request's JSON: what is read, and what is refused, stays the same."""

from __future__ import annotations

import json
import random
import tracemalloc
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from service.api import http_codec, json_data, long_lists
from service.api.http_codec import RequestHead, decode_request
from service.api.long_lists import STAND_IN, cut_out
from service.domain.errors import InvalidRequest, TiergateError

if TYPE_CHECKING:
    from collections.abc import Callable

NUMBERS = [round(0.001 * number, 3) for number in range(8000)]
SEEDS = range(8)
CHANGES = 400
CLASSES = [{"name": "y", "parameters": {"classification": 3}}]
CHARACTERS = '[]{},:"\\ \n0123456789.-+eE_tfn'
SHORT = (
    '{"inputs":[{"name":"x","shape":[2,3],"datatype":"FP32","data":[1.5,2,3,4,5,6e1]}]}',
    '{"inputs":[{"name":"x","shape":[2,3],"datatype":"INT32","data":[[1,2,3],[4,5,6]]}],"parameters":{"tier":"full"}}',
    '{"id":"a[1,2,3,4]","inputs":[{"name":"x","data":[1, 2, 3, 4],"shape":[4],"datatype":"FP64"}],"outputs":[]}',
    '{"inputs":[{"name":"x","shape":[2,1],"datatype":"BOOL","data":[[true], [false]]}],"id":null}',
    '{"inputs":[{"shape":[4],"data":[1,2,3,4],"datatype":"INT8","name":"x"},{"name":"y"}]}',
    '{"inputs":[{"name":"x","shape":[5],"datatype":"BYTES","data":["[1,2,3,4]","b","c","d","e"]}],"more":[1,2,3,4,5]}',
    '{"inputs":[{"name":"x","shape":[4],"datatype":"UINT8","data":[33550336,33550336,1,1],"data":[1,2,3,4,5,6]}]}',
)


def body_of(data: object, shape: list[int], datatype: str = "FP32", **more: object) -> bytes:
    tensor = {"name": "x", "shape": shape, "datatype": datatype, "data": data}
    return json.dumps({"inputs": [tensor], **more}).encode()


def read(body: bytes) -> list[tuple[str, str, tuple[int, ...], list[Any]]]:
    request = decode_request(body, None, RequestHead("model", "id"))
    return [(item.name, item.datatype, item.data.shape, item.data.ravel().tolist()) for item in request.inputs]


def outcome(body: bytes) -> object:
    try:
        return read(body)
    except TiergateError as error:
        return type(error), str(error)


def outcome_as_it_came(body: bytes, monkeypatch: pytest.MonkeyPatch) -> object:
    with monkeypatch.context() as patch:
        patch.setattr(http_codec, "cut_out", lambda _: None)
        return outcome(body)


@pytest.fixture
def never_as_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no request be read as it came: nothing but short texts reach the reader of JSON."""
    decode: Callable[[bytes], object] = http_codec._read

    def read_short(text: bytes) -> object:
        assert len(text) < 1000
        return decode(text)

    monkeypatch.setattr(http_codec, "_read", read_short)


@pytest.mark.usefixtures("never_as_it_came")
@pytest.mark.parametrize("shape", [[8000], [2, 4000], [2, 8, 500]])
@pytest.mark.parametrize("is_nested", [True, False])
def test_long_list_is_read_once(shape: list[int], is_nested: bool) -> None:
    data = np.reshape(NUMBERS, shape).tolist() if is_nested else NUMBERS
    (found,) = read(body_of(data, shape, "FP64", parameters={"tier": "full"}))
    assert found == ("x", "FP64", tuple(shape), NUMBERS)


@pytest.mark.usefixtures("never_as_it_came")
def test_lists_of_several_inputs_are_each_their_own() -> None:
    tensors = [
        {"name": name, "shape": [8000], "datatype": "INT32", "data": list(range(start, start + 8000))}
        for start, name in enumerate("abc")
    ]
    found = read(json.dumps({"inputs": tensors, "id": "[1, 2"}).encode())
    assert [(name, data[0], data[-1]) for name, _, _, data in found] == [("a", 0, 7999), ("b", 1, 8000), ("c", 2, 8001)]


@pytest.mark.usefixtures("never_as_it_came")
def test_body_that_came_in_pieces_is_read_as_any_other() -> None:
    body = body_of(NUMBERS, [8000], "FP64")
    assert read(cast("bytes", bytearray(body))) == read(body)


@pytest.mark.parametrize("data", [b"[" * (1 << 21), b"[]" * (1 << 20), b"[" + b"],[" * (1 << 19) + b"]"])
def test_memory_stays_a_small_multiple_of_hostile_text(data: bytes) -> None:
    body = body_of([], [1]).replace(b"[]", data)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest):
            read(body)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(body)
    finally:
        tracemalloc.stop()


def test_list_of_a_short_request_stays_in_place() -> None:
    assert cut_out(body_of(NUMBERS[:1000], [1000])) is None


def test_text_elements_stay_in_place() -> None:
    assert cut_out(body_of(["some text"] * 8000, [8000], "BYTES")) is None


def test_request_that_has_the_stand_in_itself_is_read_as_it_came() -> None:
    body = body_of(NUMBERS, [8000], id=STAND_IN.decode())
    assert cut_out(body) is None
    assert read(body)[0][2] == (8000,)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (body_of([], [8000]).replace(b"[]", b"[%b]" % (b"1," * 8000)), "malformed"),
        (body_of([], [8000]).replace(b"[]", b"[%b, ]" % (b"1," * 7999 + b"1")), "malformed"),
        (body_of([], [8000]).replace(b"[]", b"[%b,1]" % (b" " * 100_000)), "malformed"),
        (body_of([], [1]).replace(b"[]", b"[%b]" % (b"[" * 100_000)), "nested more than 100 deep"),
        (body_of(NUMBERS, [7999]), "has more than 7999 elements|8000 elements; shape"),
        (body_of([*NUMBERS, None], [8001]), r"\$\.inputs\[0\]\.data\[8000\]: Expected `float`, got `null`"),
        (body_of([*NUMBERS, 1e39], [8001]), r"\$\.inputs\[0\]\.data\[8000\]"),
        (body_of(NUMBERS, [8000]).replace(b'"data"', b'"data": [1], "data"'), "twice in one object"),
        (body_of(NUMBERS, [8000], "FP16"), "FP16 cannot travel in JSON"),
        (body_of(NUMBERS, [8000], outputs=CLASSES).replace(b"]}]", b",]}]", 1), "malformed"),
        (body_of(NUMBERS, [8000], "BYTES").replace(b"]}]", b" " * (9 << 20) + b",]}]"), "malformed"),
        (body_of([], [1]).replace(b"[]", b"[" * 20 + b"1" * 20_000 + b"]" * 20), "got `array`"),
    ],
)
def test_what_is_wrong_is_said_of_the_request_as_it_came(
    body: bytes, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidRequest, match=what):
        read(body)
    assert outcome(body) == outcome_as_it_came(body, monkeypatch)


@pytest.mark.parametrize("seed", SEEDS)
def test_changed_requests_are_read_and_refused_alike(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_lists, "_LEAST_BYTES", 6)
    monkeypatch.setattr(json_data, "_PIECE", 3)
    chance, read_at_once = random.Random(seed), 0  # noqa: S311 - the same each time
    for _ in range(CHANGES):
        text = chance.choice(SHORT)
        for _ in range(chance.randrange(4)):
            place = chance.randrange(len(text))
            text = text[:place] + chance.choice((*CHARACTERS, "")) + text[place + chance.randrange(2) :]
        body = text.encode()
        cut = cut_out(body)
        read_at_once += cut is not None
        assert outcome(body) == outcome_as_it_came(body, monkeypatch), body
    assert read_at_once > CHANGES / 4
