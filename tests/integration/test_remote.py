"""A variant on another server, by gRPC and HTTP: another gateway, and a real Triton where one is installed.

``make triton`` installs it under ``.peers``; ``TIERGATE_PEERS`` names another folder.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import onnxruntime
import pytest
import yaml

import service
from loadtests import processes
from loadtests.h2load import LoadError
from loadtests.peers import triton
from loadtests.peers.environments import describe, read_pins
from service.engine.repository import Repository
from service.exports.triton import TritonForm, export_to_triton
from tests.builders import ModelPlan, VariantPlan, write_model
from tests.integration.gateway_process import running_gateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psutil

    from tests.integration.gateway_process import GatewayProcess

pytestmark = pytest.mark.timeout(900)

PEERS = Path(os.environ.get("TIERGATE_PEERS", Path(service.__file__).parents[1] / ".peers"))
WAIT_S = 300.0
STARTS = 3
SUMS = ModelPlan(
    variants=(VariantPlan("full", "full", 0.92, 0.001, 0.5), VariantPlan("small", "quantized", 0.86, 0.001))
)
PATIENT = {"x-latency-budget-ms": "20000"}


@dataclass
class Backend:
    """A kind of server that can be started at its ports, killed, and started there again."""

    kind: str
    folder: Path
    http: int = field(default_factory=processes.free_port)
    grpc: int = field(default_factory=processes.free_port)

    def address(self, protocol: str) -> str:
        return f"{protocol}://127.0.0.1:{self.http if protocol == 'http' else self.grpc}"

    @contextlib.contextmanager
    def running(self) -> Iterator[psutil.Process]:
        with contextlib.ExitStack() as stack:
            yield self._start_triton(stack) if self.kind == "triton" else self._start(stack, self._gateway())

    def _start(self, stack: contextlib.ExitStack, command: processes.Command) -> psutil.Process:
        return stack.enter_context(processes.running(command))

    def _start_triton(self, stack: contextlib.ExitStack) -> psutil.Process:
        """Start Triton, more than once: on a busy machine its Python backend aborts now and then (lock_exception)."""
        for _ in range(STARTS - 1):
            with contextlib.suppress(LoadError):
                return self._start(stack, replace(self._triton(), start_s=120.0))
        return self._start(stack, self._triton())

    def _gateway(self) -> processes.Command:
        repository = self.folder / "repository"
        if not repository.is_dir():
            write_model(repository, SUMS)
        ports = [part for name in ("http", "grpc") for part in (f"--{name}-port", str(getattr(self, name)))]
        arguments = [sys.executable, "-m", "service.cli", "serve", str(repository), *ports, "--admin-port", "0"]
        return processes.Command(arguments, self.http, "/v2/health/ready", log=self.folder / f"{self.http}.log")

    def _triton(self) -> processes.Command:
        installed = installed_triton()
        models = self.folder / "models"
        if not models.is_dir():
            write_model(self.folder / "built", SUMS)
            how = TritonForm("python", site_packages=str(installed.site_packages))
            export_to_triton(Repository(self.folder / "built").find("sums"), models, how)
        ports = triton.Ports(self.http, self.grpc, processes.free_port())
        return triton.command(installed, models, ports, self.folder / "triton.log")


def installed_triton() -> triton.Triton:
    stamp = PEERS / triton.KEY / "prepared.json"
    if not stamp.is_file() or stamp.read_text() != describe(read_pins(triton.KEY)):
        pytest.skip(f"no Triton in {PEERS}; `make triton` installs it")
    return triton.prepare(PEERS)


@pytest.fixture(params=["tiergate", "triton"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    if request.param == "triton":
        installed_triton()
    return Backend(request.param, tmp_path)


@contextlib.contextmanager
def fronting(folder: Path, **addresses: list[str]) -> Iterator[GatewayProcess]:
    """Run a gateway whose variants of these names are at these addresses; it has no files of them."""
    version = write_model(folder / "front", SUMS)
    for variant in addresses:
        (version / f"{variant}.onnx").unlink()
    remotes = folder / "remotes.yaml"
    named = {variant: {"endpoints": endpoints} for variant, endpoints in addresses.items()}
    remotes.write_text(yaml.safe_dump({"remotes": {"sums": named}}))
    with running_gateway(folder / "front", "--remotes", str(remotes)) as gateway:
        yield gateway


def ask(gateway: GatewayProcess, rows: np.ndarray[Any, Any], model: str = "sums") -> tuple[np.ndarray[Any, Any], str]:
    tensor = {"name": "x", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
    body = json.dumps({"inputs": [tensor]}).encode()
    status, _, content = gateway.call("POST", f"/v2/models/{model}/infer", body, PATIENT)
    assert status == 200, content
    found = np.array(content["outputs"][0]["data"], dtype=np.float32).reshape(content["outputs"][0]["shape"])
    return found, content["parameters"]["variant"]


class Load:
    """Clients that ask one after the other until the block ends; ``answers`` are statuses and variants."""

    def __init__(self, gateway: GatewayProcess, clients: int = 3) -> None:
        self.answers: list[tuple[int, str]] = []
        self._gateway = gateway
        self._stop = threading.Event()
        self._came = threading.Condition()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(WAIT_S)

    def wait_for(self, variant: str, count: int = 20) -> None:
        """Wait until so many more answers were this variant's."""
        self._wait(lambda before: [name for _, name in self.answers[before:]].count(variant) >= count)

    def _wait(self, is_so: Callable[[int], bool]) -> None:
        with self._came:
            before = len(self.answers)
            assert self._came.wait_for(lambda: is_so(before), WAIT_S), self.answers[-5:]

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(self._gateway.http, timeout=WAIT_S)
        tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0] * 4}
        body = json.dumps({"inputs": [tensor]})
        while not self._stop.is_set():
            connection.request("POST", "/v2/models/sums/infer", body, PATIENT)
            response = connection.getresponse()
            content = response.read()
            variant = json.loads(content)["parameters"]["variant"] if response.status == 200 else content.decode()
            with self._came:
                self.answers.append((response.status, variant))
                self._came.notify_all()
        connection.close()


def test_variants_elsewhere_answer_as_their_files_do_by_either_protocol(backend: Backend, tmp_path: Path) -> None:
    files = write_model(tmp_path / "expected", SUMS)
    there = {"full": [backend.address("grpc")], "small": [backend.address("http")]}
    with backend.running(), fronting(tmp_path, **there) as gateway:
        for count in (1, 3, 8):
            rows = np.random.default_rng(count).normal(size=(count, 4)).astype(np.float32)
            for variant in there:
                (expected,) = onnxruntime.InferenceSession(files / f"{variant}.onnx").run(None, {"x": rows})
                found, answered_by = ask(gateway, rows, f"sums--{variant}")
                np.testing.assert_allclose(found, expected, rtol=1e-6)
                assert answered_by == variant
        assert ask(gateway, rows)[1] == "full"


def test_traffic_moves_when_the_server_is_killed_and_back_when_it_returns(backend: Backend, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        with backend.running() as process:
            gateway = stack.enter_context(fronting(tmp_path, full=[backend.address("grpc")]))
            load = stack.enter_context(Load(gateway))
            load.wait_for("full")
            process.kill()
            load.wait_for("small")
        with backend.running():
            load.wait_for("full")
    assert {status for status, _ in load.answers} == {200}


def test_another_server_takes_over_when_one_is_killed(tmp_path: Path) -> None:
    first, second = Backend("tiergate", tmp_path), Backend("tiergate", tmp_path)
    with second.running(), contextlib.ExitStack() as stack, first.running() as process:
        gateway = stack.enter_context(fronting(tmp_path, full=[first.address("grpc"), second.address("http")]))
        load = stack.enter_context(Load(gateway))
        load.wait_for("full", 50)
        process.kill()
        load.wait_for("full", 50)
    assert {status for status, _ in load.answers} == {200}


def test_a_gateway_starts_and_answers_while_the_other_server_is_away(tmp_path: Path) -> None:
    address = f"grpc://127.0.0.1:{processes.free_port()}"
    with fronting(tmp_path, full=[address]) as gateway:
        ones = np.ones((1, 4), dtype=np.float32)
        assert ask(gateway, ones)[1] == "small"
        status, _, content = gateway.call("GET", "/v2/models/sums/variants")
        assert status == 200
        states = {item["name"]: (item["state"], item["reason"]) for item in content["variants"]}
        assert states == {"full": ("failed", "none of its servers is up"), "small": ("ready", "")}


def test_a_wrong_remotes_file_is_told_before_anything_starts(tmp_path: Path) -> None:
    write_model(tmp_path / "front", SUMS)
    (tmp_path / "remotes.yaml").write_text("remotes: {sums: {full: {endpoints: ['ftp://host:1']}}}")
    arguments = ["serve", str(tmp_path / "front"), "--remotes", str(tmp_path / "remotes.yaml")]
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", *arguments], capture_output=True, text=True, check=False, timeout=WAIT_S
    )
    assert done.returncode == 2
    assert "remotes.sums.full.endpoints.0 is 'ftp://host:1'; must be grpc://HOST:PORT or http://" in done.stderr
