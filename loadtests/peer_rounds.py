"""The measuring of `make bench-peers`: rounds in which every server is asked in turn, so that noise hits them all."""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from loadtests.h2load import Figures, Load, LoadError, NothingAnswered, measure, on_cpus
from loadtests.peers.peer import Peer, Site
from loadtests.shots import Target, check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from loadtests.peers.environments import Environment
    from loadtests.peers.onnx_models import BenchModel
    from loadtests.shots import Array

BARE: Final = "bare runtime call"
_BARE_RUNS: Final = 2000
_PATIENCE: Final = 5.0
_LARGE_JSON_BYTES: Final = 2**19
LARGE_JSON_CONNECTIONS: Final = (1, 8)
"""Of an image in JSON every server answers some tens a second: more connections would only wait longer."""


@dataclass(frozen=True, slots=True)
class Cpus:
    """The cores of the servers and of the load generator; ``None`` leaves both on all of them."""

    servers: frozenset[int] | None = None
    client: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured."""

    models: tuple[BenchModel, ...]
    protocols: tuple[str, ...]
    connections: tuple[int, ...]
    rounds: int
    duration_s: float
    cpus: Cpus


@dataclass(frozen=True, slots=True)
class Key:
    """One row of the results: who was asked for what, how, and over how many connections."""

    server: str
    model: str
    protocol: str
    connections: int


@dataclass(slots=True)
class Results:
    """Every round's figures by row, and, for what could not be measured, the reason."""

    rounds: dict[Key, list[Figures]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def place(placement: str, allowed: Sequence[int]) -> Cpus:
    """Return who runs where: ``split`` keeps the last core for the load generator, ``shared`` lets all run anywhere.

    Raises:
        LoadError: There is one core only, which cannot be split.
    """
    if placement == "shared":
        return Cpus()
    *servers, client = sorted(allowed)
    if not servers:
        raise LoadError("--placement split needs two cores, one of them for the load generator; this process has one")
    return Cpus(frozenset(servers), frozenset({client}))


def run(plan: Plan, peers: Sequence[tuple[Peer, Environment]], tell: Callable[[str], None]) -> Results:
    """Measure every peer with every model; ``tell`` hears of the progress."""
    results = Results()
    for model in plan.models:
        _Session(plan, model, results, tell).run(peers)
    return results


def bare_figures(model: BenchModel, cpus: frozenset[int] | None, runs: int = _BARE_RUNS) -> Figures:
    """Return what the runtime does alone, one call after the other: no server can be faster on one core."""
    with on_cpus(cpus):
        times_s = model.measure(1, runs)
    p50_s, p99_s = np.percentile(times_s, (50, 99))
    return Figures(len(times_s), 1.0 / statistics.fmean(times_s), float(p50_s), float(p99_s))


@dataclass(frozen=True, slots=True)
class _Session:
    """The measuring of one model."""

    plan: Plan
    model: BenchModel
    results: Results
    tell: Callable[[str], None]

    def run(self, peers: Sequence[tuple[Peer, Environment]]) -> None:
        expected = self.model.expected()
        residents = [pair for pair in peers if pair[0].is_resident]
        visitors = [pair for pair in peers if not pair[0].is_resident]
        with contextlib.ExitStack() as stack:
            targets = [target for pair in residents for target in self._start(*pair, expected, stack)]
            for number in range(self.plan.rounds):
                self.tell(f"{self.model.name}: round {number + 1} of {self.plan.rounds}")
                self._note(Key(BARE, self.model.name, "none", 1), bare_figures(self.model, self.plan.cpus.servers))
                self._ask(targets)
                for pair in visitors:
                    with contextlib.ExitStack() as visit:
                        self._ask(self._start(*pair, expected, visit))

    def _start(
        self, peer: Peer, environment: Environment, expected: Array, stack: contextlib.ExitStack
    ) -> list[Target]:
        """Start a server and see that it answers rightly; what does not is left out, with the reason in the results."""
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True)))
        try:
            targets = peer.start(environment, self.model, Site(folder, self.plan.cpus.servers, stack))
        except LoadError as error:
            self._fail(f"{peer.title}, {self.model.name}", error)
            return []
        return list(self._checked(targets, expected))

    def _checked(self, targets: Sequence[Target], expected: Array) -> Iterator[Target]:
        for target in targets:
            if target.protocol in self.plan.protocols:
                try:
                    yield check(target, expected)
                except LoadError as error:
                    self._fail(f"{target.name}, {self.model.name}, {target.protocol}", error)

    def _ask(self, targets: Sequence[Target]) -> None:
        """Measure every cell, the servers of one cell right after one another."""
        for protocol in self.plan.protocols:
            asked = [target for target in targets if target.protocol == protocol]
            for count in connections_of(self.plan, self.model, protocol):
                for target in asked:
                    key = Key(target.name, self.model.name, protocol, count)
                    try:
                        self._note(key, self._measure(target, count))
                    except LoadError as error:
                        self._fail(f"{key.server}, {key.model}, {key.protocol}, {key.connections} connections", error)

    def _measure(self, target: Target, connections: int) -> Figures:
        """Measure one cell; a server that answers nothing in the time gets one longer run."""
        load = Load(connections, self.plan.duration_s, cpus=self.plan.cpus.client)
        try:
            return measure(target.shot, load)
        except NothingAnswered:
            return measure(target.shot, replace(load, duration_s=_PATIENCE * load.duration_s))

    def _note(self, key: Key, figures: Figures) -> None:
        self.results.rounds.setdefault(key, []).append(figures)

    def _fail(self, what: str, error: LoadError) -> None:
        self.results.failures[what] = str(error)
        self.tell(f"{what}: {str(error).splitlines()[0]}")


def connections_of(plan: Plan, model: BenchModel, protocol: str) -> tuple[int, ...]:
    """Return over how many connections a model is asked; a large tensor in JSON is asked over few."""
    if protocol == "HTTP JSON" and model.row.data.nbytes > _LARGE_JSON_BYTES:
        return LARGE_JSON_CONNECTIONS
    return plan.connections


def allowed_cpus() -> tuple[int, ...]:
    """Return the cores that this process may use."""
    return tuple(sorted(os.sched_getaffinity(0)))
