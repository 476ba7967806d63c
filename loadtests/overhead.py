"""What the gateway costs: against the bare runtime call, and beside the bare frontends, in one interleaved run.

``python -m loadtests.overhead`` serves a built model (``make demo`` builds one) by both frontends, and the raw servers
of ``loadtests.peers.raw`` with the same ONNX file, then measures every target in rounds, one after the other, so that a
slow moment of the machine hits all of them. All traffic stays on loopback.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime as ort
from rich.console import Console
from rich.table import Table
from tritonclient.grpc import service_pb2

from loadtests.h2load import Figures, LoadError, Shot, measure
from loadtests.peers.raw import MODEL_VARIABLE
from variants.manifest import ManifestError, ModelManifest, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_START_S: Final = 60.0
_GRPC_PATH: Final = "inference.GRPCInferenceService/ModelInfer"
_BARE_RUNS: Final = 3000


@dataclass(frozen=True, slots=True)
class Target:
    """One server and protocol under test."""

    name: str
    protocol: str
    shot: Shot


def main() -> int:
    """Run the benchmark; print the table and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.overhead", description=__doc__.splitlines()[0])
    parser.add_argument("--repository", type=Path, default=Path("repository"))
    parser.add_argument("--model", default="digits")
    parser.add_argument("--variant", default="distilled")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--output", type=Path, default=Path("loadtests/results/overhead.json"))
    parsed = parser.parse_args()
    try:
        folder, manifest = find_model(parsed.repository, parsed.model)
        with contextlib.ExitStack() as stack:
            targets = start_targets(stack, parsed.repository, folder, manifest, parsed.variant)
            results = run_rounds(targets, parsed.connections, parsed.rounds, parsed.seconds)
        bare_s = measure_bare(folder / manifest.variant(parsed.variant).file, manifest)
    except (LoadError, ManifestError, KeyError, OSError) as error:
        print(f"overhead: {error}", file=sys.stderr)  # noqa: T201 - a command line
        return 2
    report(results, bare_s, parsed)
    return 0


def find_model(repository: Path, model: str) -> tuple[Path, ModelManifest]:
    """Return the newest version's folder and manifest."""
    versions = sorted((path for path in (repository / model).glob("[1-9]*")), key=lambda path: int(path.name))
    if not versions:
        raise LoadError(f"no model '{model}' in {repository}; build it with: tiergate build {model}")
    return versions[-1], read_manifest(versions[-1])


def measure_bare(file: Path, manifest: ModelManifest) -> float:
    """Return the median time of one runtime call with one row, in seconds."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
    inputs = {manifest.inputs[0].name: _row(manifest)}
    times = []
    for _ in range(_BARE_RUNS):
        start_s = time.perf_counter()
        session.run(None, inputs)
        times.append(time.perf_counter() - start_s)
    return statistics.median(times)


def start_targets(
    stack: contextlib.ExitStack, repository: Path, folder: Path, manifest: ModelManifest, variant: str
) -> list[Target]:
    """Start every server; the stack ends them."""
    model_file = str(folder / manifest.variant(variant).file)
    python = [sys.executable, "-m"]
    raw = [*python, "loadtests.peers.raw"]
    environment = {**os.environ, MODEL_VARIABLE: model_file}
    targets: list[Target] = []
    for frontend in ("python", "pyvoy"):
        ports = [_free_port() for _ in range(3)]
        flags = ["--http-port", str(ports[0]), "--grpc-port", str(ports[1]), "--admin-port", str(ports[2])]
        command = [*python, "service.cli", "serve", str(repository), "--frontend", frontend, *flags]
        stack.enter_context(_running([*command, "--log-level", "error"], ports[0], environment))
        grpc_port = ports[1] if frontend == "python" else ports[0]
        targets += shots(f"tiergate, {frontend}", f"{manifest.model}--{variant}", manifest, (ports[0], grpc_port))
    http_port, grpc_port, envoy_port = _free_port(), _free_port(), _free_port()
    stack.enter_context(_running([*raw, "http", model_file, str(http_port)], http_port, environment))
    stack.enter_context(_running([*raw, "grpc", model_file, str(grpc_port)], grpc_port, environment))
    envoy = [
        str(Path(sys.executable).with_name("pyvoy")),
        "loadtests.peers.raw:app",
        "--port",
        str(envoy_port),
        "--no-lifespan",
    ]
    stack.enter_context(_running(envoy, envoy_port, environment))
    targets += [
        target for target in shots("raw uvicorn", "raw", manifest, (http_port, 0)) if target.protocol == "HTTP JSON"
    ]
    targets += [target for target in shots("raw grpcio", "raw", manifest, (0, grpc_port)) if target.protocol == "gRPC"]
    targets += [
        target
        for target in shots("raw pyvoy", "raw", manifest, (envoy_port, envoy_port))
        if target.protocol != "HTTP binary"
    ]
    return targets


def shots(name: str, model: str, manifest: ModelManifest, ports: tuple[int, int]) -> list[Target]:
    """Return the three forms of one request with one row."""
    row = _row(manifest)
    tensor: dict[str, Any] = {"name": manifest.inputs[0].name, "shape": list(row.shape), "datatype": "FP32"}
    as_json = json.dumps({"inputs": [{**tensor, "data": row.ravel().tolist()}]}).encode()
    head = json.dumps(
        {
            "inputs": [{**tensor, "parameters": {"binary_data_size": row.nbytes}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    message = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[row.tobytes()])
    message.inputs.add(name=manifest.inputs[0].name, datatype="FP32", shape=row.shape)
    encoded = message.SerializeToString()
    url = f"http://127.0.0.1:{ports[0]}/v2/models/{model}/infer"
    binary = (("content-type", "application/octet-stream"), ("inference-header-content-length", str(len(head))))
    grpc = (("content-type", "application/grpc"), ("te", "trailers"))
    frame = b"\0" + len(encoded).to_bytes(4, "big") + encoded
    return [
        Target(name, "HTTP JSON", Shot(url, (("content-type", "application/json"),), as_json, is_grpc=False)),
        Target(name, "HTTP binary", Shot(url, binary, head + row.tobytes(), is_grpc=False)),
        Target(name, "gRPC", Shot(f"http://127.0.0.1:{ports[1]}/{_GRPC_PATH}", grpc, frame, is_grpc=True)),
    ]


def run_rounds(
    targets: Sequence[Target], connections: Sequence[int], rounds: int, seconds: float
) -> dict[tuple[str, str, int], list[Figures]]:
    """Measure every target once a round, and return every round's figures."""
    results: dict[tuple[str, str, int], list[Figures]] = {}
    for _ in range(rounds):
        for count in connections:
            for target in targets:
                figures = measure(target.shot, count, seconds)
                results.setdefault((target.name, target.protocol, count), []).append(figures)
    return results


def report(results: dict[tuple[str, str, int], list[Figures]], bare_s: float, parsed: argparse.Namespace) -> None:
    """Print the medians over rounds, and keep every round in the JSON."""
    table = Table(title=f"{parsed.model}--{parsed.variant}; the bare runtime call takes {bare_s * 1e6:.0f} us")
    for column in ("server", "protocol", "connections", "requests/s", "p50 ms", "p99 ms", "p50 over bare, ms"):
        table.add_column(column, justify="left" if column in ("server", "protocol") else "right")
    for (name, protocol, count), rounds in sorted(
        results.items(), key=lambda item: (item[0][1], item[0][2], item[0][0])
    ):
        rate, p50_s, p99_s = (
            statistics.median(getattr(item, field) for item in rounds) for field in ("rate_hz", "p50_s", "p99_s")
        )
        over = f"{(p50_s - bare_s) * 1e3:.3f}" if count == 1 else ""
        table.add_row(name, protocol, str(count), f"{rate:,.0f}", f"{p50_s * 1e3:.3f}", f"{p99_s * 1e3:.3f}", over)
    Console(width=120).print(table)
    parsed.output.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "bare_s": bare_s,
        "results": [
            {"server": name, "protocol": protocol, "connections": count, "rounds": [asdict(item) for item in rounds]}
            for (name, protocol, count), rounds in results.items()
        ],
    }
    parsed.output.write_text(json.dumps(document, indent=1) + "\n")


def _row(manifest: ModelManifest) -> np.ndarray[Any, np.dtype[np.float32]]:
    shape = (1, *manifest.inputs[0].shape[1:])
    return np.random.default_rng(0).uniform(0.0, 16.0, shape).round().astype(np.float32)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def _running(command: Sequence[str], port: int, environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603 - our own servers
    try:
        _await_port(port, process, command)
        yield
    finally:
        process.terminate()
        process.wait(_START_S)


def _await_port(port: int, process: subprocess.Popen[bytes], command: Sequence[str]) -> None:
    end_s = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < end_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise LoadError(f"{' '.join(command)} did not start listening on port {port}")


if __name__ == "__main__":
    sys.exit(main())
