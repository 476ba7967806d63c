"""An idle machine: one connection, one request at a time, beside the bare runtime call and the bare frontend."""

from __future__ import annotations

import functools
import statistics
import sys
from typing import TYPE_CHECKING, Any, Final

from loadtests import gateway
from loadtests.h2load import Load, LoadError, measure
from loadtests.overhead import measure_bare
from loadtests.peers.raw import MODEL_VARIABLE
from loadtests.processes import Command, free_port, running
from loadtests.servers import shots

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtests.serving.setting import Setting

_ROUNDS: Final = 5
_DURATION_S: Final = 1.0
_PROTOCOL: Final = "HTTP JSON"
OURS: Final = "tiergate"
FLOOR: Final = "raw frontend"


def run_idle(setting: Setting, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure the fastest variant in interleaved rounds; return the medians over rounds, in seconds."""
    folder, manifest = setting.manifest()
    variant = min(setting.ladder().variants, key=lambda item: item.profile.at(1).p50_s).name
    file = folder / manifest.variant(variant).file
    port = free_port()
    raw = Command(
        [sys.executable, "-m", "loadtests.peers.raw", "http", str(file), str(port)],
        port,
        environment={MODEL_VARIABLE: str(file)},
    )
    bare = functools.partial(measure_bare, file, manifest)
    rounds: dict[str, list[float]] = {"bare": [], OURS: [], FLOOR: []}
    with gateway.running_gateway(setting.repository, None) as address, running(raw):
        own = int(address.http.rpartition(":")[2])
        targets = [
            *shots(OURS, f"{setting.model}--{variant}", manifest, (own, 0)),
            *shots(FLOOR, "raw", manifest, (port, 0)),
        ]
        for _ in range(_ROUNDS):
            rounds["bare"].append(bare())
            for target in targets:
                if target.protocol != _PROTOCOL:
                    continue
                figures = measure(target.shot, Load(1, _DURATION_S))
                if figures.errors:
                    raise LoadError(f"{target.name} answered {figures.errors} requests with an error")
                rounds[target.name].append(figures.p50_s)
            say("idle: a round done")
    medians = {name: statistics.median(values) for name, values in rounds.items()}
    return {"variant": variant, "protocol": _PROTOCOL, "rounds": rounds, "p50_s": medians}
