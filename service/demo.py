"""The demo: build the digits model's variants, serve them, ask over HTTP and gRPC, and show who answered and why.

It goes through the front door: the gateway runs as a process of its own, and the questions are sent by Triton's own
clients and by plain HTTP, with real labelled digits that no variant was trained on.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from service.interrupts import interrupts_held

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Images = NDArray[np.float32]
    Labels = NDArray[np.int64]

MODEL: Final = "digits"
_START_S: Final = 60
_READY: Final = re.compile(r"HTTP on (\S+):(\d+), gRPC on (\S+):(\d+)")
_BURST: Final = 64
_ROOM_MS: Final = 0.6
"""Time around a run that a budget of the demo leaves for the rest of the machine."""
_TIGHT_MS: Final = 0.4
"""A budget for the smallest variants."""
_HOPELESS_MS: Final = 0.05
"""A budget that no variant keeps."""


class DemoError(RuntimeError):
    """The demo's gateway did not start."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where the demo's gateway listens."""

    http: str
    grpc: str


@dataclass(frozen=True, slots=True)
class Question:
    """One request of the demo: which client sends it, what it asks, and which test row it carries."""

    via: str
    asks: str
    parameters: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    model: str = MODEL


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: the predicted digit and the answer's response parameters, or the status of a refusal."""

    digit: int
    answer: dict[str, Any]
    refused: str = ""


@contextmanager
def running_server(repository: Path, ports: Sequence[int]) -> Iterator[tuple[Server, subprocess.Popen[str]]]:
    """Run ``tiergate serve`` on the repository; ports are HTTP, gRPC, admin, 0 for a free one.

    Raises:
        DemoError: It did not start.
    """
    names = ("--http-port", "--grpc-port", "--admin-port")
    flags = [part for name, port in zip(names, ports, strict=True) for part in (name, str(port))]
    command = [sys.executable, "-m", "service.cli", "serve", str(repository), "--log-level", "warning", *flags]
    process: subprocess.Popen[str] | None = None
    try:
        with interrupts_held():
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own program
        line = process.stdout.readline() if process.stdout else ""
        found = _READY.search(line)
        if found is None:
            raise DemoError(f"the gateway did not start: {line.strip() or 'see the message above'}")
        yield Server(f"{found[1]}:{found[2]}", f"{found[3]}:{found[4]}"), process
    finally:
        if process is not None:
            process.terminate()
            process.wait(_START_S)


def choose_questions(server: Server) -> list[Question]:
    """Return the demo's questions; budgets lie just above what each variant is predicted to take on this machine."""
    candidates = [item for item in route(server)["candidates"] if item["is_candidate"]]
    best = max(item["accuracy"] for item in candidates)
    floor = int(best * 1e4) / 1e4
    clients = ("http json", "http binary", "grpc")
    questions = [Question(via, "nothing") for via in clients]
    questions += [
        Question(clients[index % 3], f"budget {budget:g} ms", {"latency_budget_ms": budget})
        for index, budget in enumerate(_budgets_ms([item["predicted_ms"] for item in candidates]))
    ]
    hardware = json.dumps({"memory_mb": 512, "accelerator": "wasm"})
    questions += [
        Question(
            "http json",
            f"budget {_HOPELESS_MS:g} ms, accuracy >= {floor:g}",
            {"latency_budget_ms": _HOPELESS_MS, "min_accuracy": floor},
        ),
        Question("grpc", "hardware class mobile", {"client_hardware": "mobile"}),
        Question("http binary", "512 MB browser", {"client_hardware": hardware}),
        Question("http json", "browser hint: mobile", headers={"Sec-CH-UA-Mobile": "?1"}),
        Question("grpc", "tier quantized", {"tier": "quantized"}),
        Question("http json", "variant distilled", model=f"{MODEL}--distilled"),
    ]
    return questions


def _budgets_ms(predicted_ms: Sequence[float]) -> list[float]:
    """Return budgets a little above the predictions, the roomiest first, without near repetitions."""
    budgets: list[float] = []
    for budget in sorted((round(time_ms * 1.5 + _ROOM_MS, 1) for time_ms in predicted_ms), reverse=True):
        if not budgets or budget < 0.9 * budgets[-1]:
            budgets.append(budget)
    return [*budgets, _TIGHT_MS]


def route(server: Server) -> dict[str, Any]:
    """Return the gateway's explanation of what it would do with a request that asks nothing."""
    with urllib.request.urlopen(f"http://{server.http}/v2/models/{MODEL}/route", timeout=10) as response:
        explanation: dict[str, Any] = json.load(response)
        return explanation


class Clients:
    """The three ways to ask."""

    def __init__(self, server: Server) -> None:
        """Connect."""
        self._server = server
        self._http = tritonclient.http.InferenceServerClient(server.http, concurrency=1)
        self._grpc = tritonclient.grpc.InferenceServerClient(server.grpc)

    def close(self) -> None:
        """Disconnect."""
        self._http.close()
        self._grpc.close()

    def ask(self, question: Question, image: Images) -> Reply:
        """Send one image of shape (1, 8, 8) and return the answer, or that there was none: a busy machine refuses."""
        ways = {"http json": self._ask_json, "http binary": self._ask_binary, "grpc": self._ask_grpc}
        try:
            return ways[question.via](question, image[np.newaxis])
        except urllib.error.HTTPError as error:
            return Reply(-1, {}, str(error.code))
        except InferenceServerException as error:
            return Reply(-1, {}, error.status() or error.message())

    def _ask_json(self, question: Question, rows: Images) -> Reply:
        body = {
            "inputs": [{"name": "image", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}],
            "parameters": question.parameters,
        }
        request = urllib.request.Request(
            f"http://{self._server.http}/v2/models/{question.model}/infer",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **question.headers},
        )
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            answer = json.load(response)
        return Reply(int(np.argmax(answer["outputs"][0]["data"])), answer["parameters"])

    def _ask_binary(self, question: Question, rows: Images) -> Reply:
        image = tritonclient.http.InferInput("image", list(rows.shape), "FP32")
        image.set_data_from_numpy(rows)
        result = self._http.infer(
            question.model, [image], headers=question.headers or None, parameters=question.parameters or None
        )
        return Reply(int(result.as_numpy("logits").argmax()), result.get_response()["parameters"])

    def _ask_grpc(self, question: Question, rows: Images) -> Reply:
        image = tritonclient.grpc.InferInput("image", list(rows.shape), "FP32")
        image.set_data_from_numpy(rows)
        result = self._grpc.infer(
            question.model, [image], headers=question.headers or None, parameters=question.parameters or None
        )
        parameters = result.get_response().parameters
        answer = {name: getattr(value, str(value.WhichOneof("parameter_choice"))) for name, value in parameters.items()}
        return Reply(int(result.as_numpy("logits").argmax()), answer)


def burst(server: Server, images: Images, labels: Labels, budget_ms: float) -> tuple[Counter[str], int, int]:
    """Send many requests at once; return who answered, how many were in time, and how many were right."""

    def ask(index: int) -> Reply:
        clients = Clients(server)
        try:
            return clients.ask(Question("http json", "", {"latency_budget_ms": budget_ms}), images[index])
        finally:
            clients.close()

    with ThreadPoolExecutor(_BURST) as pool:
        replies = list(pool.map(ask, range(_BURST)))
    answered = Counter("nobody (refused)" if reply.refused else str(reply.answer["variant"]) for reply in replies)
    in_time = sum(bool(reply.answer.get("budget_met")) for reply in replies)
    return answered, in_time, sum(reply.digit == label for reply, label in zip(replies, labels, strict=False))
