"""Ray Serve: its proxy before one replica, over HTTP and, with the protocol's own stubs, over gRPC."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from loadtests.h2load import Shot
from loadtests.peers.environments import SERVICES, Environment, prepare_environment
from loadtests.peers.onnx_models import CLASSES
from loadtests.peers.peer import Peer, Site
from loadtests.processes import Command, free_port
from loadtests.shots import Answer, Target, grpc_target, json_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtests.peers.onnx_models import BenchModel
    from loadtests.shots import Array

_QUIET: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "RAY_SERVE_ENABLE_TELEMETRY": "0"}


def read(answer: Answer) -> Array:
    """Read the flat list and the shape that the service answers."""
    document = json.loads(answer.body)
    return np.array(document["data"], np.float32).reshape(document["shape"])


def read_bytes(answer: Answer) -> Array:
    """Read raw bytes."""
    return np.frombuffer(answer.body, np.float32).reshape(1, CLASSES)


def _start(environment: Environment, model: BenchModel, site: Site) -> Sequence[Target]:
    http, grpc = free_port(), free_port()
    file = site.folder / "model.onnx"
    file.write_bytes(model.content)
    arguments = [environment.python, str(SERVICES / "ray_service.py"), str(file), str(http), str(grpc)]
    command = Command(
        [*arguments, str(site.folder / "ray")],
        http,
        "/-/healthz",
        {**_QUIET, "PYTHONPATH": str(SERVICES)},
        folder=site.folder,
        log=site.folder / "log",
        start_s=120.0,
    )
    site.run(command)
    row, url = model.row, f"http://127.0.0.1:{http}/peer"
    shape = ",".join(map(str, row.data.shape))
    headers = (("content-type", "application/octet-stream"), ("shape", shape))
    binary = Shot(url, headers, row.data.tobytes(), is_grpc=False)
    return [
        json_target(PEER.title, url, {"data": row.values, "shape": list(row.data.shape)}, read),
        Target(PEER.title, "HTTP binary", binary, read_bytes),
        grpc_target(PEER.title, "peer", row, grpc, (("application", "peer"),)),
    ]


PEER: Final = Peer(
    "ray",
    "Ray Serve",
    "one replica; access log off, metrics on",
    partial(prepare_environment, "ray"),
    _start,
    is_resident=False,  # measured: 0.4 of a core, idle
)
