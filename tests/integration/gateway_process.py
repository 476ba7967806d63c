"""``tiergate serve`` as a process of its own, and the ways in which clients reach it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from onnx import helper, numpy_helper

from tests.builders import ModelPlan, VariantPlan, onnx_model, replace_file, write_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_READY = re.compile(r"HTTP on (\S+):(\d+), gRPC on \S+:(\d+), admin on \S+:(\d+)")
_WIDTH = 768
_HEAVY_STEPS = 1200
_PATIENCE_S = 300.0

# A budget that only the predictions of ``sums`` can miss, and one that nothing can: a machine that is busy with other
# things stands still for tenths of a second, and a request that was read too late is rightly turned away.
TIGHT_MS, ROOMY_MS = 1_000, 900_000
_PATIENT = f"default: {{default_budget_ms: {ROOMY_MS}}}\n"

# Full takes tens of milliseconds and is predicted to take seconds, so that no machine is quick enough to have it in a
# tight budget; the others take next to nothing, so that none is too slow.
SUMS = ModelPlan(
    variants=(
        VariantPlan("full", "full", 0.92, 0.030, tail=200.0),
        VariantPlan("quantized", "quantized", 0.915, 0.0001),
        VariantPlan("distilled", "distilled", 0.86, 0.0001),
    ),
)


def write_sums(root: Path) -> Path:
    """Write the model ``sums`` with a ``full`` variant that really takes tens of milliseconds."""
    folder = write_model(root, SUMS)
    replace_file(folder, "full", heavy_onnx())
    return folder


def heavy_onnx() -> bytes:
    """Return a file that sums each row, after many multiplications by a matrix of zeros."""
    zeros = np.zeros((_WIDTH, _WIDTH), dtype=np.float32)
    weights = [
        numpy_helper.from_array(np.ones((4, 1), dtype=np.float32), "ones"),
        numpy_helper.from_array(zeros[:4], "widen"),
        numpy_helper.from_array(zeros, "zeros"),
        numpy_helper.from_array(zeros[:, :1], "narrow"),
    ]
    nodes = [helper.make_node("MatMul", ["x", "widen"], ["h0"])]
    nodes += [helper.make_node("MatMul", [f"h{step}", "zeros"], [f"h{step + 1}"]) for step in range(_HEAVY_STEPS)]
    nodes += [
        helper.make_node("MatMul", [f"h{_HEAVY_STEPS}", "narrow"], ["nothing"]),
        helper.make_node("MatMul", ["x", "ones"], ["sum"]),
        helper.make_node("Add", ["sum", "nothing"], ["y"]),
    ]
    return onnx_model(nodes, weights)


@dataclass
class GatewayProcess:
    """A running gateway."""

    process: subprocess.Popen[str]
    http: str
    grpc: str
    admin: str

    def call(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, where: str = ""
    ) -> tuple[int, dict[str, str], Any]:
        """Send one plain HTTP request; return status, lower-case headers, and the body, parsed where it is JSON."""
        connection = http.client.HTTPConnection(where or self.http, timeout=_PATIENCE_S)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            content = response.read()
            found = {name.lower(): value for name, value in response.getheaders()}
        finally:
            connection.close()
        is_json = found.get("content-type", "").startswith("application/json") and content
        return response.status, found, json.loads(content) if is_json else content

    def metric(self, start: str, where: str = "") -> float:
        """Return the sum of a metric's lines that start so."""
        rows = self.call("GET", "/metrics", where=where)[2].decode().splitlines()
        return sum(float(row.rsplit(" ", 1)[1]) for row in rows if row.startswith(start))

    def rss_bytes(self) -> int:
        """Return the resident memory of the process and its children."""
        root = psutil.Process(self.process.pid)
        return sum(int(item.memory_info().rss) for item in (root, *root.children(recursive=True)))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(_PATIENCE_S)


def until(is_so: Callable[[], bool]) -> None:
    """Look until something is so; the test's timeout ends a vain wait.

    It pauses between two looks: looking without a pause would take the CPU from the process that is waited for.
    """
    while not is_so():
        threading.Event().wait(0.02)


def rewrite(path: Path, text: str) -> None:
    """Replace a file at once, as an operator's tools and Kubernetes do: whoever looks at it never sees a half of it."""
    fresh = path.with_suffix(".fresh")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


@contextmanager
def running_gateway(repository: Path, *flags: str, **environment: str) -> Iterator[GatewayProcess]:
    """Run ``tiergate serve`` on free ports; end it, if it still runs, when the block is left.

    Where neither ``flags`` nor ``environment`` say otherwise, requests that name no budget have a roomy one.
    """
    ports = [part for name in ("http", "grpc", "admin") for part in (f"--{name}-port", "0")]
    command = [sys.executable, "-m", "service.cli", "serve", str(repository), *ports, *flags]
    patient = repository.parent / "patient.yaml"
    patient.write_text(_PATIENT, encoding="utf-8")
    ours = {"TIERGATE_POLICY": str(patient), "TIERGATE_MAX_TIMEOUT_S": "3600"}
    log = (repository.parent / "gateway.log").open("a")
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **ours, **environment}
    )
    try:
        assert process.stdout is not None
        found = _READY.search(process.stdout.readline())
        assert found is not None, (repository.parent / "gateway.log").read_text()
        host = found[1]
        yield GatewayProcess(process, f"{host}:{found[2]}", f"{host}:{found[3]}", f"{host}:{found[4]}")
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(_PATIENCE_S)
        finally:
            process.kill()  # what drains longer, because a test failed before its end, must not stay
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
            log.close()
