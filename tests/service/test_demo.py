"""The demo on a machine so busy that the gateway refuses."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import numpy as np
import pytest

from service.demo import Clients, Question, Server, burst
from service.demo_cli import _cells

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGES, LABELS = np.zeros((64, 1, 8, 8), np.float32), np.zeros(64, np.int64)


class Refusing(BaseHTTPRequestHandler):
    """Answers everything as an overloaded gateway does."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"error": "the server is overloaded"}'
        self.send_response(429)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's own name
        """Say nothing."""


class Patient(ThreadingHTTPServer):
    """Has room for a burst that comes while this machine does something else."""

    request_queue_size = 128


@pytest.fixture
def overloaded() -> Iterator[Server]:
    """A server that refuses, and nobody at the gRPC port."""
    with Patient(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Server(f"127.0.0.1:{server.server_port}", "127.0.0.1:9")
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("via", "status"), [("http json", "429"), ("http binary", "429"), ("grpc", "StatusCode.UNAVAILABLE")]
)
def test_a_refusal_is_a_row_of_the_table(overloaded: Server, via: str, status: str) -> None:
    clients = Clients(overloaded)
    question = Question(via, "nothing")
    cells = _cells(question, clients.ask(question, IMAGES[0]), 0)
    clients.close()
    assert (cells["variant"], cells["why"], cells["right"]) == ("nobody", f"refused: {status}", "")


def test_a_burst_that_is_refused_is_counted(overloaded: Server) -> None:
    assert burst(overloaded, IMAGES, LABELS, 5.0) == ({"nobody (refused)": 64}, 0, 0)
