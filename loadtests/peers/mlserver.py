"""MLServer, with the model as a custom runtime."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from loadtests.peers.environments import SERVICES, Environment, prepare_environment
from loadtests.peers.peer import Peer, Site
from loadtests.processes import Command, free_port
from loadtests.shots import protocol_targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtests.peers.onnx_models import BenchModel
    from loadtests.shots import Target


def settings(http: int, grpc: int, metrics: int) -> dict[str, Any]:
    """Return ``settings.json``: no log line for each request, and inference in the server's own process."""
    return {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "parallel_workers": 0,
    }


def model_settings(model: BenchModel, file: str) -> dict[str, Any]:
    """Return ``model-settings.json``."""
    return {"name": model.name, "implementation": "mlserver_runtime.Runtime", "parameters": {"uri": file}}


def _start(environment: Environment, model: BenchModel, site: Site) -> Sequence[Target]:
    http, grpc, metrics = (free_port() for _ in range(3))
    file = site.folder / "model.onnx"
    file.write_bytes(model.content)
    (site.folder / "settings.json").write_text(json.dumps(settings(http, grpc, metrics)))
    (site.folder / "model-settings.json").write_text(json.dumps(model_settings(model, str(file))))
    command = Command(
        [environment.program("mlserver"), "start", str(site.folder)],
        http,
        "/v2/health/ready",
        {"PYTHONPATH": str(SERVICES)},
        folder=site.folder,
        log=site.folder / "log",
    )
    site.run(command)
    targets = protocol_targets(PEER.title, model.name, model.row, (http, grpc))
    return [target for target in targets if target.protocol != "HTTP binary"]  # which it does not speak


PEER: Final = Peer(
    "mlserver",
    "MLServer",
    "inference in the server's process; metrics on",
    partial(prepare_environment, "mlserver"),
    _start,
)
