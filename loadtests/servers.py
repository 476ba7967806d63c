"""The servers that are compared, each in a process of its own on loopback, and the requests that they are sent."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from loadtests.peers.raw import MODEL_VARIABLE
from loadtests.processes import Command, free_port, running
from loadtests.shots import Row, protocol_targets

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Iterator, Sequence

    from loadtests.shots import Target
    from variants.manifest import ModelManifest

_PYTHON: Final = (sys.executable, "-m")


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
            http, grpc, admin = (free_port() for _ in range(3))
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
            port = free_port()
            self._run([*_PYTHON, "bentoml", "serve", service, "--port", str(port)], port)
            yield from _only("HTTP JSON", shots(name, self._model, self.manifest, (port, 0)))

    def _raw(self) -> Iterator[Target]:
        http, grpc, envoy = free_port(), free_port(), free_port()
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
            MODEL_VARIABLE: self._file,
            "TIERGATE_REPOSITORY": str(self.repository),
            "TIERGATE_LOG_LEVEL": "error",
            "BENTOML_DO_NOT_TRACK": "True",
        }
        self.stack.enter_context(running(Command(command, port, environment=environment)))


def _only(protocol: str, targets: Sequence[Target]) -> Iterator[Target]:
    return (target for target in targets if target.protocol == protocol)


def shots(name: str, model: str, manifest: ModelManifest, ports: tuple[int, int]) -> list[Target]:
    """Return the three forms of one request with one row."""
    return protocol_targets(name, model, Row(manifest.inputs[0].name, one_row(manifest)), ports)


def one_row(manifest: ModelManifest) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return one seeded row of whole grey values, as a scan has them."""
    shape = (1, *manifest.inputs[0].shape[1:])
    return np.random.default_rng(0).uniform(0.0, 16.0, shape).round().astype(np.float32)
