"""Servers that the load generator's tests send to."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np

from loadtests import arrivals
from loadtests.gateway import find_target, split_cores
from loadtests.plan import Address, Job, Mix, RequestClass, draw_schedule
from loadtests.processes import Command, free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil
    from numpy.typing import NDArray

    from loadtests.plan import Protocol

KIND = RequestClass("all", budget_s=0.05)
ALIKE: Final = Mix((KIND,))


@contextmanager
def null_server(*flags: str) -> Iterator[tuple[Address, psutil.Process]]:
    """Run the server that does nothing."""
    port = free_port()
    command = [sys.executable, "-m", "loadtests.peers.null", str(port), *flags]
    with running(Command(command, port, "/v2")) as process:
        yield Address(f"127.0.0.1:{port}"), process


def poisson(rate_hz: float, duration_s: float, seed: int = 0) -> NDArray[np.float64]:
    """Return Poisson arrivals."""
    return arrivals.poisson(rate_hz, duration_s, np.random.default_rng(seed))


def make_job(
    address: Address,
    times_s: NDArray[np.float64],
    *,
    protocol: Protocol = "http-binary",
    model: str = "null",
    timeout_s: float = 10.0,
    connections: int = 16,
    mix: Mix = ALIKE,
) -> Job:
    """Return a job with random rows, of one kind of request if no mix is given."""
    target = find_target(address, model, protocol)
    rows = np.random.default_rng(0).random((32, *target.row_shape), np.float32)
    schedule = draw_schedule(times_s, mix, len(rows), seed=0)
    return Job(target, rows, mix.classes, schedule, timeout_s, split_cores()[0], connections)
