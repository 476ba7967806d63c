"""The servers that are compared, each in a process of its own on loopback, and the requests that they are sent."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from tritonclient.grpc import service_pb2

from loadtests.h2load import LoadError, Shot
from loadtests.peers.raw import MODEL_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from variants.manifest import ModelManifest

_START_S: Final = 60.0
_GRPC_PATH: Final = "inference.GRPCInferenceService/ModelInfer"
_PYTHON: Final = (sys.executable, "-m")


@dataclass(frozen=True, slots=True)
class Target:
    """One server and protocol under test."""

    name: str
    protocol: str
    shot: Shot


@dataclass(frozen=True, slots=True)
class Servers:
    """What serves: one variant of a built model, by the gateway's frontends and by servers without a gateway."""

    stack: contextlib.ExitStack
    repository: Path
    folder: Path
    manifest: ModelManifest
    variant: str

    def start(self) -> list[Target]:
        """Start every server, to be ended with the stack; return what can be asked of them."""
        return [*self._gateways(), *self._bento(), *self._raw()]

    @property
    def _model(self) -> str:
        return f"{self.manifest.model}--{self.variant}"

    def _gateways(self) -> Iterator[Target]:
        for frontend in ("python", "pyvoy"):
            http, grpc, admin = (_free_port() for _ in range(3))
            command = [*_PYTHON, "service.cli", "serve", str(self.repository), "--frontend", frontend]
            command += ["--http-port", str(http), "--grpc-port", str(grpc), "--admin-port", str(admin)]
            self._run([*command, "--log-level", "error"], http)
            ports = (http, grpc if frontend == "python" else http)
            yield from shots(f"tiergate, {frontend}", self._model, self.manifest, ports)

    def _bento(self) -> Iterator[Target]:
        for name, service in (
            ("tiergate, BentoML", "service.bento:TiergateService"),
            ("raw, BentoML mount", "loadtests.peers.bento_mount:Mounted"),
        ):
            port = _free_port()
            self._run([*_PYTHON, "bentoml", "serve", service, "--port", str(port)], port)
            yield from _only("HTTP JSON", shots(name, self._model, self.manifest, (port, 0)))

    def _raw(self) -> Iterator[Target]:
        http, grpc, envoy = _free_port(), _free_port(), _free_port()
        raw = [*_PYTHON, "loadtests.peers.raw"]
        self._run([*raw, "http", self._file, str(http)], http)
        self._run([*raw, "grpc", self._file, str(grpc)], grpc)
        pyvoy = str(Path(sys.executable).with_name("pyvoy"))
        self._run([pyvoy, "loadtests.peers.raw:app", "--port", str(envoy), "--no-lifespan"], envoy)
        yield from _only("HTTP JSON", shots("raw, uvicorn", "raw", self.manifest, (http, 0)))
        yield from _only("gRPC", shots("raw, grpcio", "raw", self.manifest, (0, grpc)))
        yield from _only("HTTP JSON", shots("raw, pyvoy", "raw", self.manifest, (envoy, envoy)))
        yield from _only("gRPC", shots("raw, pyvoy", "raw", self.manifest, (envoy, envoy)))

    @property
    def _file(self) -> str:
        return str(self.folder / self.manifest.variant(self.variant).file)

    def _run(self, command: Sequence[str], port: int) -> None:
        environment = {
            **os.environ,
            MODEL_VARIABLE: self._file,
            "TIERGATE_REPOSITORY": str(self.repository),
            "TIERGATE_LOG_LEVEL": "error",
            "BENTOML_DO_NOT_TRACK": "True",
        }
        self.stack.enter_context(_running(command, port, environment))


def _only(protocol: str, targets: Sequence[Target]) -> Iterator[Target]:
    return (target for target in targets if target.protocol == protocol)


def shots(name: str, model: str, manifest: ModelManifest, ports: tuple[int, int]) -> list[Target]:
    """Return the three forms of one request with one row."""
    row = one_row(manifest)
    tensor: dict[str, Any] = {"name": manifest.inputs[0].name, "shape": list(row.shape), "datatype": "FP32"}
    as_json = json.dumps({"inputs": [{**tensor, "data": row.ravel().tolist()}]}).encode()
    head = json.dumps(
        {
            "inputs": [{**tensor, "parameters": {"binary_data_size": row.nbytes}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    message = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[row.tobytes()])
    message.inputs.add(name=manifest.inputs[0].name, datatype="FP32", shape=row.shape)
    encoded = message.SerializeToString()
    url = f"http://127.0.0.1:{ports[0]}/v2/models/{model}/infer"
    binary = (("content-type", "application/octet-stream"), ("inference-header-content-length", str(len(head))))
    grpc = (("content-type", "application/grpc"), ("te", "trailers"))
    frame = b"\0" + len(encoded).to_bytes(4, "big") + encoded
    return [
        Target(name, "HTTP JSON", Shot(url, (("content-type", "application/json"),), as_json, is_grpc=False)),
        Target(name, "HTTP binary", Shot(url, binary, head + row.tobytes(), is_grpc=False)),
        Target(name, "gRPC", Shot(f"http://127.0.0.1:{ports[1]}/{_GRPC_PATH}", grpc, frame, is_grpc=True)),
    ]


def one_row(manifest: ModelManifest) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return one seeded row of whole grey values, as a scan has them."""
    shape = (1, *manifest.inputs[0].shape[1:])
    return np.random.default_rng(0).uniform(0.0, 16.0, shape).round().astype(np.float32)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def _running(command: Sequence[str], port: int, environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603 - our own servers
    try:
        _await_port(port, process, command)
        yield
    finally:
        process.terminate()
        process.wait(_START_S)


def _await_port(port: int, process: subprocess.Popen[bytes], command: Sequence[str]) -> None:
    end_s = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < end_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise LoadError(f"{' '.join(command)} did not start listening on port {port}")
