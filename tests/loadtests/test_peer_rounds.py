from __future__ import annotations

import contextlib
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import numpy as np
import pytest

from loadtests.h2load import LoadError, Shot, on_cpus
from loadtests.peer_bench import PEERS, parse
from loadtests.peer_rounds import LARGE_JSON_CONNECTIONS, Cpus, Plan, bare_figures, connections_of, place
from loadtests.peers.onnx_models import make_models
from loadtests.shots import Target, check, read_json

if TYPE_CHECKING:
    from collections.abc import Iterator

MODELS = make_models()
ANSWER = b'{"outputs": [{"shape": [1, 2], "data": [1.0, 2.0]}]}'


@contextlib.contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def target(url: str) -> Target:
    return Target("a server", "HTTP JSON", Shot(url, (), b"{}", is_grpc=False), read_json)


def plan(*connections: int) -> Plan:
    return Plan(tuple(MODELS.values()), ("HTTP JSON",), connections, 1, 0.1, Cpus())


def test_split_gives_the_last_core_to_the_client_alone() -> None:
    assert place("split", [3, 0, 1]) == Cpus(frozenset({0, 1}), frozenset({3}))


def test_split_of_one_core_is_refused() -> None:
    with pytest.raises(LoadError, match="needs two cores"):
        place("split", [0])


def test_shared_pins_nothing() -> None:
    assert place("shared", [0, 1]) == Cpus(None, None)


def test_cores_are_given_back() -> None:
    before = os.sched_getaffinity(0)
    one = frozenset({min(before)})

    with on_cpus(one):
        assert os.sched_getaffinity(0) == one

    assert os.sched_getaffinity(0) == before


def test_image_in_json_is_asked_over_few_connections() -> None:
    assert connections_of(plan(1, 64), MODELS["image"], "HTTP JSON") == LARGE_JSON_CONNECTIONS
    assert connections_of(plan(1, 64), MODELS["image"], "gRPC") == (1, 64)
    assert connections_of(plan(1, 64), MODELS["mlp"], "HTTP JSON") == (1, 64)


def test_right_answer_passes_and_tells_its_length() -> None:
    with answering(200, ANSWER) as url:
        checked = check(target(url), np.array([[1.0, 2.0]], np.float32))

    assert checked.shot.answer_bytes == len(ANSWER)


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (200, b'{"outputs": [{"shape": [1, 2], "data": [1.0, 2.1]}]}', r"answered \[\[1.0, 2.0"),
        (200, b'{"outputs": [{"shape": [2], "data": [1.0, 2.0]}]}', r"the runtime \[\[1.0, 2.0\]\]"),
        (200, b'{"error": "x"}', "an answer of another form"),
        (200, b"hello", "an answer of another form"),
        (503, b"busy", "answered 503: busy"),
    ],
)
def test_wrong_answer_is_refused_before_anything_is_timed(status: int, body: bytes, problem: str) -> None:
    with answering(status, body) as url, pytest.raises(LoadError, match=problem):
        check(target(url), np.array([[1.0, 2.0]], np.float32))


def test_server_that_is_not_there_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        with pytest.raises(LoadError, match=f"{url} did not answer"):
            check(target(url), np.zeros((1, 2), np.float32))


def test_bare_call_is_measured() -> None:
    figures = bare_figures(MODELS["mlp"], None, runs=50)

    assert (figures.requests, figures.errors) == (50, 0)
    assert 0.0 < figures.p50_s <= figures.p99_s


def test_command_line_takes_every_peer_by_default_and_refuses_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse([]).peers == [peer.key for peer in PEERS]
    with pytest.raises(SystemExit):
        parse(["--peers", "nobody"])
    assert "invalid choice: 'nobody'" in capsys.readouterr().err


def test_every_peer_has_a_name_of_its_own() -> None:
    assert len({peer.key for peer in PEERS}) == len({peer.title for peer in PEERS}) == len(PEERS)
