"""A remotes file that changes while requests are answered, over real sockets."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from loadtests import processes
from tests.builders import ModelPlan, VariantPlan, write_model
from tests.integration.gateway_process import rewrite, running_gateway, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.gateway_process import GatewayProcess

WAIT_S = 300.0
SUMS = ModelPlan(
    variants=(VariantPlan("full", "full", 0.92, 0.001), VariantPlan("small", "quantized", 0.86, 0.001, 3.0))
)
BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0] * 4}]}).encode()
PATIENT = {"x-latency-budget-ms": "20000"}
HERE = (12.0, "small")


@contextlib.contextmanager
def other_gateway(folder: Path, scale: float) -> Iterator[str]:
    """Run a gateway whose full variant multiplies by ``scale``; yield its address."""
    plan = replace(SUMS, variants=(replace(SUMS.variants[0], scale=scale), SUMS.variants[1]))
    write_model(folder, plan)
    http, grpc = processes.free_port(), processes.free_port()
    arguments = [sys.executable, "-m", "service.cli", "serve", str(folder), "--admin-port", "0"]
    arguments += ["--http-port", str(http), "--grpc-port", str(grpc)]
    command = processes.Command(arguments, http, "/v2/health/ready", log=folder.with_suffix(".log"))
    with processes.running(command):
        yield f"grpc://127.0.0.1:{grpc}"


class Front:
    """A gateway that has the small variant only, and its remotes file."""

    def __init__(self, gateway: GatewayProcess, path: Path) -> None:
        self.gateway = gateway
        self.path = path

    def write(self, text: str) -> None:
        rewrite(self.path, text)

    def name(self, *endpoints: str) -> None:
        self.write(named(*endpoints))

    def ask(self) -> tuple[float, str]:
        status, _, content = self.gateway.call("POST", "/v2/models/sums/infer", BODY, PATIENT)
        assert status == 200, content
        return content["outputs"][0]["data"][0], content["parameters"]["variant"]

    def gauge(self, line: str) -> float:
        _, _, text = self.gateway.call("GET", "/metrics")
        return next(float(row.split()[-1]) for row in text.decode().splitlines() if row.startswith(f"tiergate_{line} "))


def named(*endpoints: str) -> str:
    spec = {"full": {"endpoints": list(endpoints)}} if endpoints else {}
    return yaml.safe_dump({"remotes": {"sums": spec}})


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[str, str]]:
    with other_gateway(tmp_path / "first", 0.5) as first, other_gateway(tmp_path / "second", 2.0) as second:
        yield first, second


@pytest.fixture
def front(tmp_path: Path, servers: tuple[str, str]) -> Iterator[Front]:
    (write_model(tmp_path / "front", SUMS) / "full.onnx").unlink()
    path = tmp_path / "remotes.yaml"
    path.write_text(named(servers[0]))
    with running_gateway(tmp_path / "front", "--remotes", str(path)) as gateway:
        yield Front(gateway, path)


class Asking(threading.Thread):
    """Clients' requests without a pause, each of which must be answered; ``answers`` are in order."""

    def __init__(self, front: Front) -> None:
        super().__init__()
        self.answers: list[Any] = []
        self.ends = threading.Event()
        self._front = front

    def run(self) -> None:
        while not self.ends.is_set():
            try:
                self.answers.append(self._front.ask())
            except Exception as error:  # noqa: BLE001 - whatever a client met is the test's to judge
                self.answers.append(error)


def test_a_changed_file_moves_traffic_without_a_lost_request_and_a_wrong_one_changes_nothing(
    front: Front, servers: tuple[str, str]
) -> None:
    until(lambda: front.ask() == (2.0, "full"))  # a busy machine may take the other server for silent for a moment
    asking = Asking(front)
    asking.start()
    front.name(servers[1])
    until(lambda: asking.answers[-1:] == [(8.0, "full")])

    front.write("remotes: {sums: {full: {endpoints: ['ftp://there:1']}}}")
    front.gateway.process.send_signal(signal.SIGHUP)
    until(lambda: front.gauge("remotes_file_refused") == 1.0)
    until(lambda: front.ask() == (8.0, "full"))

    front.name()  # nobody runs it now, and it is not here
    front.gateway.process.send_signal(signal.SIGHUP)
    until(lambda: asking.answers[-1:] == [HERE])
    front.name(*servers)
    until(lambda: asking.answers[-1:] == [(8.0, "full")])
    asking.ends.set()
    asking.join(WAIT_S)

    assert set(asking.answers) <= {(2.0, "full"), (8.0, "full"), HERE}
    assert front.gauge("remotes_file_refused") == 0.0
    assert front.gauge('remotes_reloads_total{outcome="applied"}') == 3.0
    assert front.gauge('remotes_reloads_total{outcome="refused"}') == 1.0
