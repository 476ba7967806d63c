"""``tiergate serve`` as a process of its own, and the ways in which clients reach it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from onnx import helper, numpy_helper

from tests.builders import ModelPlan, VariantPlan, onnx_model, replace_file, write_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_READY = re.compile(r"HTTP on (\S+):(\d+), gRPC on \S+:(\d+), admin on \S+:(\d+)")
_WIDTH = 768
_HEAVY_STEPS = 1200

SUMS = ModelPlan(
    variants=(
        VariantPlan("full", "full", 0.92, 0.030),
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
        connection = http.client.HTTPConnection(where or self.http, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            content = response.read()
            found = {name.lower(): value for name, value in response.getheaders()}
        finally:
            connection.close()
        is_json = found.get("content-type", "").startswith("application/json") and content
        return response.status, found, json.loads(content) if is_json else content

    def rss_bytes(self) -> int:
        """Return the resident memory of the process and its children."""
        root = psutil.Process(self.process.pid)
        return sum(int(item.memory_info().rss) for item in (root, *root.children(recursive=True)))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def running_gateway(repository: Path, *flags: str, **environment: str) -> Iterator[GatewayProcess]:
    """Run ``tiergate serve`` on free ports; end it, if it still runs, when the block is left."""
    ports = [part for name in ("http", "grpc", "admin") for part in (f"--{name}-port", "0")]
    command = [sys.executable, "-m", "service.cli", "serve", str(repository), *ports, *flags]
    log = (repository.parent / "gateway.log").open("a")
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **environment}
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
            process.wait(60)
        finally:
            process.kill()  # what drains longer, because a test failed before its end, must not stay
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
            log.close()
