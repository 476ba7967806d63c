from __future__ import annotations

import json

import grpc
import pytest

from service.api.grpc_errors import GRPC_STATUS, grpc_status
from service.api.http_errors import HTTP_STATUS, error_reply
from service.domain import errors
from service.domain.errors import InvalidRequest, Overloaded, TiergateError

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, TiergateError)]


def test_both_tables_name_every_error_and_no_other() -> None:
    assert set(HTTP_STATUS) == set(CLASSES)
    assert set(GRPC_STATUS) == set(CLASSES)


@pytest.mark.parametrize("error_class", CLASSES)
def test_error_has_its_status_on_both_protocols(error_class: type[TiergateError]) -> None:
    error = Overloaded("busy", 0.2) if error_class is Overloaded else error_class("busy")
    reply = error_reply(error, "r1")
    assert reply.status == HTTP_STATUS[error_class] >= 400
    assert json.loads(reply.body) == {"error": "busy"}
    assert grpc_status(error, "r1").code is GRPC_STATUS[error_class]
    assert grpc_status(error, "r1").message == "busy"


@pytest.mark.parametrize(
    ("retry_s", "header", "pushback"), [(0.0, b"1", "1"), (0.25, b"1", "250"), (2.1, b"3", "2100")]
)
def test_overload_says_when_to_try_again(retry_s: float, header: bytes, pushback: str) -> None:
    error = Overloaded("busy", retry_s)
    assert (b"retry-after", header) in error_reply(error, "r1").headers
    assert grpc_status(error, "r1").metadata == (("grpc-retry-pushback-ms", pushback),)


def test_foreign_error_tells_the_caller_nothing_but_the_request_id() -> None:
    error = RuntimeError("/secret/path")
    assert json.loads(error_reply(error, "r1").body) == {"error": "internal error; request id r1"}
    assert error_reply(error, "r1").status == 500
    assert grpc_status(error, "r1").message == "internal error; request id r1"
    assert grpc_status(error, "r1").code is grpc.StatusCode.INTERNAL


def test_long_message_is_cut() -> None:
    error = InvalidRequest("x" * 100_000)
    assert len(error_reply(error, "r1").body) < 3000
    assert len(grpc_status(error, "r1").message) <= 1000
