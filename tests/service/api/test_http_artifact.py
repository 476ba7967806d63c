from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.service.api.conftest import Caller, HttpAnswer

ARTIFACT = "/v2/models/digits/variants/small/artifact"
FILE = bytes(index % 251 for index in range(1000))


async def ask(caller: Caller, method: str, path: str, **more: Any) -> HttpAnswer:  # noqa: ANN401
    answer = await caller.call(method, path, **more)
    assert answer is not None
    return answer


async def test_artifact_is_the_file_with_its_digest(caller: Caller) -> None:
    answer = await ask(caller, "GET", ARTIFACT)
    assert (answer.status, answer.body) == (200, FILE)
    assert answer.headers["etag"] == f'"{"ab" * 32}"'
    assert answer.headers["content-type"] == "application/octet-stream"
    head = await ask(caller, "HEAD", ARTIFACT)
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "1000")


async def test_artifact_is_not_sent_again_to_who_has_it(caller: Caller) -> None:
    for condition in (f'"{"ab" * 32}"', f'"x", W/"{"ab" * 32}"', "*"):
        answer = await ask(caller, "GET", ARTIFACT, headers={"if-none-match": condition})
        assert (answer.status, answer.body) == (304, b"")
    assert (await ask(caller, "GET", ARTIFACT, headers={"if-none-match": '"x"'})).status == 200


@pytest.mark.parametrize(
    ("wanted", "status", "start", "end"),
    [
        ("bytes=0-9", 206, 0, 10),
        ("bytes=990-", 206, 990, 1000),
        ("bytes=-5", 206, 995, 1000),
        ("bytes=-5000", 206, 0, 1000),
        ("bytes=500-99999", 206, 500, 1000),
        ("bytes=1000-", 416, 0, 0),
        ("bytes=-0", 416, 0, 0),
        ("bytes=9-5", 416, 0, 0),
        ("bytes=-", 416, 0, 0),
        ("bytes=0-1,5-6", 200, 0, 1000),
        ("lines=0-1", 200, 0, 1000),
    ],
)
async def test_artifact_is_sent_in_ranges(caller: Caller, wanted: str, status: int, start: int, end: int) -> None:
    answer = await ask(caller, "GET", ARTIFACT, headers={"range": wanted})
    assert answer.status == status
    if status == 416:
        assert answer.headers["content-range"] == "bytes */1000"
        assert "lies outside the file of 1000 bytes" in json.loads(answer.body)["error"]
    else:
        assert answer.body == FILE[start:end]
    if status == 206:
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/1000"


async def test_artifact_range_of_another_file_gets_the_whole(caller: Caller) -> None:
    answer = await ask(caller, "GET", ARTIFACT, headers={"range": "bytes=0-9", "if-range": '"other"'})
    assert (answer.status, len(answer.body)) == (200, 1000)


async def test_artifact_is_chosen_by_hardware(caller: Caller) -> None:
    answer = await ask(caller, "GET", "/v2/models/digits/artifact?hardware=phone")
    assert answer.headers["x-tiergate-variant"] == "small"
    assert (await ask(caller, "GET", "/v2/models/digits/variants/absent/artifact")).status == 404
