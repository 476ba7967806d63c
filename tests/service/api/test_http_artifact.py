from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from service.api.plane import Refusal
    from tests.service.api.conftest import Caller, HttpAnswer, StubPlane

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
async def test_artifact_is_sent_in_ranges(
    caller: Caller, refusals: list[Refusal], wanted: str, status: int, start: int, end: int
) -> None:
    answer = await ask(caller, "GET", ARTIFACT, headers={"range": wanted})
    assert answer.status == status
    if status == 416:
        assert answer.headers["content-range"] == "bytes */1000"
        assert "lies outside the file of 1000 bytes" in json.loads(answer.body)["error"]
        assert [str(refusal.error) for refusal in refusals] == [json.loads(answer.body)["error"]]
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


def swap(path: Path) -> None:
    """Put another file of the same size and time in the place of this one."""
    times = path.stat()
    path.rename(path.with_suffix(".old"))
    path.write_bytes(bytes(1000))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def link(path: Path) -> None:
    """Put a link to the very file in its place."""
    path.rename(path.with_suffix(".old"))
    path.symlink_to(path.with_suffix(".old"))


def grow(path: Path) -> None:
    """Make it longer."""
    path.write_bytes(bytes(1001))


def replace_by_fifo(path: Path) -> None:
    """Put a pipe that nobody writes into in its place."""
    path.unlink()
    os.mkfifo(path)


def identity(path: Path) -> tuple[int, int, int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@pytest.mark.parametrize("change", [swap, link, grow, replace_by_fifo, os.unlink])
async def test_artifact_is_unavailable_when_its_file_is_not_the_verified_one(
    caller: Caller, plane: StubPlane, refusals: list[Refusal], change: Callable[[Path], None]
) -> None:
    plane.artifact_identity = identity(plane.artifact_path)
    assert (await ask(caller, "GET", ARTIFACT)).status == 200
    change(plane.artifact_path)
    answer = await ask(caller, "GET", ARTIFACT)
    assert answer.status == 503
    message = "the file of variant 'small' is not there as it was verified; reload the model"
    assert json.loads(answer.body) == {"error": message}
    assert [(str(refusal.error), refusal.stage) for refusal in refusals] == [(message, "route")]


async def test_artifact_is_cut_off_when_its_file_changes_while_it_is_sent(
    plane: StubPlane, caller: Caller, refusals: list[Refusal]
) -> None:
    plane.artifact_identity = identity(plane.artifact_path)
    sent: list[Any] = []

    async def send(message: Any) -> None:  # noqa: ANN401 - ASGI messages are untyped
        sent.append(message)
        plane.artifact_path.write_bytes(bytes(1000))
        os.utime(plane.artifact_path, ns=(0, 1))  # another time even where the file system's clock is coarse

    async def receive() -> Any:  # noqa: ANN401 - ASGI messages are untyped
        return {"type": "http.request"}

    scope = {"type": "http", "method": "GET", "path": ARTIFACT, "headers": []}
    await caller.app(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start"]
    assert ["verified" in str(refusal.error) for refusal in refusals] == [True]
