"""LitServe, which puts each request through a queue to a worker process."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from loadtests.peers.environments import SERVICES, Environment, prepare_environment
from loadtests.peers.peer import Peer, Site
from loadtests.processes import Command, free_port
from loadtests.shots import Answer, json_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtests.peers.onnx_models import BenchModel
    from loadtests.shots import Array, Target


def read(answer: Answer) -> Array:
    """Read the flat list and the shape that the service answers."""
    document = json.loads(answer.body)
    return np.array(document["data"], np.float32).reshape(document["shape"])


def _start(environment: Environment, model: BenchModel, site: Site) -> Sequence[Target]:
    port = free_port()
    file = site.folder / "model.onnx"
    file.write_bytes(model.content)
    service = str(SERVICES / "litserve_service.py")
    command = Command(
        [environment.python, service, str(file), str(port)],
        port,
        "/health",
        folder=site.folder,
        log=site.folder / "log",
    )
    site.run(command)
    row = model.row
    document = {"data": row.values, "shape": list(row.data.shape)}
    return [json_target(PEER.title, f"http://127.0.0.1:{port}/predict", document, read)]


PEER: Final = Peer(
    "litserve", "LitServe", "one worker process; access log off", partial(prepare_environment, "litserve"), _start
)
