"""The gateway under test, seen from outside: what it serves, what its metrics say, and how to start one."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from loadtests.h2load import LoadError
from loadtests.plan import Address, Target
from loadtests.processes import Command, free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from loadtests.plan import Protocol

_OK: Final = 200
_WAIT_S: Final = 60.0
_MOST_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class Scrape:
    """One reading of the gateway's metrics; ``at`` is Unix time. Absent figures are ``None`` or empty."""

    at: float
    cpu_s: float | None
    requests: dict[str, float]
    """Inference requests counted so far, by outcome."""
    lane_busy: tuple[float, ...]
    """Share of the time since the scrape before that each lane computed."""
    queued: float


@contextlib.contextmanager
def running_gateway(repository: Path, cores: frozenset[int] | None, flags: Sequence[str] = ()) -> Iterator[Address]:
    """Run ``tiergate serve`` on free ports, on these cores alone, until the block ends.

    Raises:
        LoadError: It did not start.
    """
    ports = [free_port() for _ in range(3)]
    command = [sys.executable, "-m", "service.cli", "serve", str(repository), "--log-level", "warning"]
    for name, port in zip(("http", "grpc", "admin"), ports, strict=True):
        command += [f"--{name}-port", str(port)]
    with running(Command([*command, *flags], ports[0], "/v2/health/ready"), cores):
        yield Address(*(f"127.0.0.1:{port}" for port in ports))


def split_cores(generator_core: int | None = None) -> tuple[int, frozenset[int]]:
    """Return a core for the generator (the last allowed one by default) and the rest, or all if there is only one."""
    allowed = os.sched_getaffinity(0)
    core = max(allowed) if generator_core is None else generator_core
    if core not in allowed:
        raise LoadError(f"core {core} is not among those that this process may use: {sorted(allowed)}")
    return core, frozenset(allowed - {core} or allowed)


def read_address(url: str, grpc: str = "") -> Address:
    """Return the address that a URL names; gRPC is on the next port where nothing else is said.

    Raises:
        LoadError: It is no ``http://HOST:PORT``.
    """
    parts = urlsplit(url if "//" in url else f"http://{url}")
    try:
        port = parts.port or 80
    except ValueError:
        port = 0
    if parts.scheme != "http" or not parts.hostname or not port or parts.path.strip("/"):
        raise LoadError(f"'{url}' is no address; expected http://HOST:PORT")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Address(f"{host}:{port}", grpc or f"{host}:{port + 1}", f"{host}:{port}")


def read_host_port(text: str, flag: str) -> str:
    """Return ``HOST:PORT`` as a flag gives it, with ``http://`` before it or without.

    Raises:
        LoadError: It is none.
    """
    found = text.removeprefix("http://").rstrip("/")
    host, _, port = found.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) <= _MOST_PORT:
        raise LoadError(f"{flag} is '{text}'; expected HOST:PORT")
    return found


def find_target(address: Address, model: str, protocol: Protocol) -> Target:
    """Ask the server what the model takes.

    Raises:
        LoadError: It cannot be asked, has no such model, or the model takes more than one input.
    """
    described = get_json(address.http, f"/v2/models/{model}")
    inputs = described.get("inputs", [])
    if len(inputs) != 1:
        raise LoadError(f"model '{model}' takes {len(inputs)} inputs; a load test can send exactly 1")
    shape = tuple(int(dim) for dim in inputs[0]["shape"][1:])
    return Target(address, protocol, model, inputs[0]["name"], inputs[0]["datatype"], shape)


def scrape(address: Address) -> Scrape | None:
    """Read the metrics; ``None`` where the server offers none."""
    try:
        status, content = _get(address.admin or address.http, "/metrics")
        return read_metrics(content.decode()) if status == _OK else None
    except (LoadError, ValueError):  # the parser's word for what is no exposition
        return None


def read_metrics(text: str) -> Scrape:
    """Pick from an exposition what a load test reports."""
    cpu_s: float | None = None
    requests: dict[str, float] = {}
    lanes: dict[int, float] = {}
    queued = 0.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "process_cpu_seconds_total":
                cpu_s = sample.value
            elif sample.name == "tiergate_requests_total":
                outcome = sample.labels["outcome"]
                requests[outcome] = requests.get(outcome, 0.0) + sample.value
            elif sample.name == "tiergate_lane_busy_ratio":
                lanes[int(sample.labels["lane"])] = sample.value
            elif sample.name == "tiergate_queue_depth":
                queued += sample.value
    return Scrape(time.time(), cpu_s, requests, tuple(lanes[lane] for lane in sorted(lanes)), queued)


def get_json(address: str, path: str) -> dict[str, Any]:
    """Return what a path answers.

    Raises:
        LoadError: The server cannot be reached, or its answer is not a JSON object with status 200.
    """
    status, content = _get(address, path)
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    if status != _OK or not isinstance(answer, dict):
        detail = answer.get("error", "") if isinstance(answer, dict) else ""
        raise LoadError(f"http://{address}{path} answered {status}{': ' if detail else ''}{detail}")
    return answer


def _get(address: str, path: str) -> tuple[int, bytes]:
    try:
        with contextlib.closing(http.client.HTTPConnection(address, timeout=_WAIT_S)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:  # what is no address among the latter
        raise LoadError(f"http://{address}{path} cannot be reached: {error}") from None
