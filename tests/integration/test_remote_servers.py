"""A variant on MLServer, and on KServe's own server, by gRPC and HTTP; ``make remote-servers`` installs both."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from loadtests import processes
from loadtests.peers import mlserver
from loadtests.peers.environments import SERVICES, Environment, describe, read_pins
from tests.builders import sums_onnx
from tests.integration.test_remote import PEERS, WAIT_S, ask, fronting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(900)

SCALES = {"full": 0.5, "small": 3.0}
METADATA = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
}


def installed(name: str) -> Environment:
    stamp = PEERS / name / "prepared.json"
    if not stamp.is_file() or stamp.read_text() != describe(read_pins(name)):
        pytest.skip(f"no {name} in {PEERS}; `make remote-servers` installs it")
    return Environment((PEERS / name).absolute())


def mlserver_command(environment: Environment, folder: Path, http: int, grpc: int) -> processes.Command:
    (folder / "settings.json").write_text(json.dumps(mlserver.settings(http, grpc, processes.free_port())))
    for variant in SCALES:
        named = {"name": f"sums--{variant}", "implementation": "mlserver_runtime.Runtime"}
        model = {**named, "parameters": {"uri": str(folder / variant / "model.onnx")}, **METADATA}
        (folder / variant / "model-settings.json").write_text(json.dumps(model))
    arguments = [environment.program("mlserver"), "start", str(folder)]
    return processes.Command(arguments, http, "/v2/health/ready", {"PYTHONPATH": str(SERVICES)}, folder)


def kserve_command(environment: Environment, folder: Path, http: int, grpc: int) -> processes.Command:
    program = str(SERVICES / "kserve_service.py")
    named = [part for variant in SCALES for part in (f"sums--{variant}", str(folder / variant / "model.onnx"))]
    arguments = [environment.python, program, str(http), str(grpc), *named]
    return processes.Command(arguments, http, "/v2/health/ready", folder=folder)


@contextlib.contextmanager
def running(name: str, folder: Path) -> Iterator[dict[str, str]]:
    """Run a server with both variants; yield its addresses by protocol."""
    environment, (http, grpc) = installed(name), (processes.free_port(), processes.free_port())
    for variant, scale in SCALES.items():
        (folder / variant).mkdir(parents=True)
        (folder / variant / "model.onnx").write_bytes(sums_onnx(scale))
    make = {"mlserver": mlserver_command, "kserve": kserve_command}[name]
    command = make(environment, folder, http, grpc)
    with processes.running(replace(command, log=folder / "log", start_s=WAIT_S, stop_s=WAIT_S)):
        yield {"grpc": f"grpc://127.0.0.1:{grpc}", "http": f"http://127.0.0.1:{http}"}


@pytest.mark.parametrize("name", ["mlserver", "kserve"])
def test_the_gateway_asks_other_peoples_servers_by_either_protocol(name: str, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    with (
        running(name, tmp_path / name) as addresses,
        fronting(tmp_path, full=[addresses["grpc"]], small=[addresses["http"]]) as gateway,
    ):
        for variant, scale in SCALES.items():
            found, answered_by = ask(gateway, rows, f"sums--{variant}")
            assert answered_by == variant
            np.testing.assert_allclose(found, scale * rows.sum(axis=1, keepdims=True), rtol=1e-5)
        assert ask(gateway, rows)[1] == "full"
