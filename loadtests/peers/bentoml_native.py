"""BentoML with its own form of a service; the mount of another application in it is measured elsewhere."""

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
    """Read the nested list that the service answers."""
    return np.array(json.loads(answer.body), np.float32)


def _start(environment: Environment, model: BenchModel, site: Site) -> Sequence[Target]:
    port = free_port()
    file = site.folder / "model.onnx"
    file.write_bytes(model.content)
    arguments = [environment.program("bentoml"), "serve", "bentoml_service:PeerService", "--host", "127.0.0.1"]
    arguments += ["--port", str(port), "--working-dir", str(SERVICES)]
    command = Command(
        arguments,
        port,
        "/readyz",
        {"PEER_MODEL": str(file), "BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(site.folder / "bentoml")},
        folder=site.folder,
        log=site.folder / "log",
    )
    site.run(command)
    return [json_target(PEER.title, f"http://127.0.0.1:{port}/infer", {"x": model.row.nested}, read)]


PEER: Final = Peer(
    "bentoml",
    "BentoML native",
    "one worker; access log off, metrics on",
    partial(prepare_environment, "bentoml"),
    _start,
)
