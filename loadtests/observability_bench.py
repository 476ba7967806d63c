"""What observing costs on the request path: gateways with less and more of it, side by side in one interleaved run.

``make bench-observability`` serves a built model (``make demo`` builds one) by several gateways that differ only in
what they observe, each a process of its own, and asks them in turns: every round asks all of them, in an order that
rotates, so that a slow moment of the machine hits all alike. Beside the throughput it takes the CPU time per answer
from the kernel's account of each process, which can be compared even where others use the machine. What is reported
are ratios to the first gateway of the same round. All traffic stays on loopback.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import http.server
import json
import statistics
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from loadtests.gateway import split_cores
from loadtests.h2load import Load, LoadError, measure
from loadtests.intervals import percentile_interval
from loadtests.overhead import find_model
from loadtests.processes import Command, free_port, running
from loadtests.record import describe_run
from loadtests.servers import shots
from variants.manifest import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psutil

    from loadtests.shots import Target

_BAR: Final = 0.03
_PROTOCOLS: Final = ("HTTP JSON", "gRPC")
_PATIENT: Final = "default: {default_budget_ms: 60000}\n"
"""Nobody is refused, whatever else the machine does."""
_OFF: Final = ("--no-metrics", "--decisions-kept", "0")


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway under test: what it observes, its process, the port for its statistics, what it is asked."""

    name: str
    process: psutil.Process
    port: int
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn of one gateway: answers per second, and CPU seconds of its process for each answer."""

    rate_hz: float
    cpu_s: float


Samples = dict[tuple[str, str], list[Sample]]


def main() -> int:
    """Run the benchmark; print the table and write the JSON; return 1 where metrics and decisions cost too much."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.observability_bench", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--repository", type=Path, default=Path("repository"))
    parser.add_argument("--model", default="digits")
    parser.add_argument("--variant", default="distilled")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--duration-s", type=float, default=1.0)
    parser.add_argument("--output", type=Path, default=Path("loadtests/results/observability.json"))
    parsed = parser.parse_args()
    try:
        with contextlib.ExitStack() as stack:
            gateways = _start(stack, parsed)
            samples = _rounds(gateways, parsed)
    except (LoadError, ManifestError, KeyError, OSError) as error:
        print(f"observability_bench: {error}", file=sys.stderr)  # noqa: T201 - a command line
        return 2
    return _report([gateway.name for gateway in gateways], samples, parsed)


def _start(stack: contextlib.ExitStack, parsed: argparse.Namespace) -> list[Gateway]:
    folder, manifest = find_model(parsed.repository, parsed.model)
    del folder
    collector = stack.enter_context(_collecting())
    policy = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "policy.yaml"
    policy.write_text(_PATIENT)
    kinds = {
        "nothing": _OFF,
        "metrics and decisions": (),
        "and 1 % traced": ("--trace-endpoint", collector, "--trace-ratio", "0.01"),
        "and 100 % traced": ("--trace-endpoint", collector, "--trace-ratio", "1"),
    }
    gateways = []
    for name, flags in kinds.items():
        ports = [free_port() for _ in range(3)]
        command = [sys.executable, "-m", "service.cli", "serve", str(parsed.repository), "--log-level", "error", *flags]
        command += ["--policy", str(policy)]
        for kind, port in zip(("http", "grpc", "admin"), ports, strict=True):
            command += [f"--{kind}-port", str(port)]
        process = stack.enter_context(running(Command(command, ports[0], "/v2/health/ready"), split_cores()[1]))
        targets = shots(name, f"{parsed.model}--{parsed.variant}", manifest, (ports[0], ports[1]))
        wanted = tuple(target for target in targets if target.protocol in _PROTOCOLS)
        gateways.append(Gateway(name, process, ports[0], wanted))
    return gateways


@contextlib.contextmanager
def _collecting() -> Iterator[str]:
    """Run a collector that takes spans and keeps none; return its address."""

    class Sink(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # the name is the library's
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _rounds(gateways: Sequence[Gateway], parsed: argparse.Namespace) -> Samples:
    samples: Samples = {}
    load = Load(parsed.connections, parsed.duration_s, warm_up_s=0.2, cpus=frozenset({split_cores()[0]}))
    for number in range(parsed.rounds):
        start = number % len(gateways)
        for gateway in (*gateways[start:], *gateways[:start]):
            for target in gateway.targets:
                sample = _measure(gateway, target, load, parsed.model)
                samples.setdefault((gateway.name, target.protocol), []).append(sample)
    return samples


def _measure(gateway: Gateway, target: Target, load: Load, model: str) -> Sample:
    count, used_s = _answered(gateway.port, model), _cpu_s(gateway.process)
    figures = measure(target.shot, load)
    used_s, count = _cpu_s(gateway.process) - used_s, _answered(gateway.port, model) - count
    if figures.errors:
        raise LoadError(f"{target.shot.url} answered {figures.errors} requests with an error")
    return Sample(figures.rate_hz, used_s / count)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _answered(port: int, model: str) -> int:
    """Return how many answers a gateway has given; its statistics count them whatever else it observes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", f"/v2/models/{model}/stats")
        document = json.loads(connection.getresponse().read())
    return int(document["model_stats"][0]["inference_stats"]["success"]["count"])


def _report(names: Sequence[str], samples: Samples, parsed: argparse.Namespace) -> int:
    """Print and write medians of ratios to the gateway that observes nothing; return 1 where the bar is missed."""
    table = Table(title=f"{parsed.model}--{parsed.variant}, {parsed.connections} connections, {parsed.rounds} rounds")
    for column in ("observes", "protocol", "answers/s", "throughput lost", "CPU us/answer", "CPU added"):
        table.add_column(column, justify="left" if column in ("observes", "protocol") else "right", no_wrap=True)
    lost, added = {}, {}
    for protocol in _PROTOCOLS:
        base = samples[names[0], protocol]
        for name in names:
            key, found = (name, protocol), samples[name, protocol]
            lost[key] = _ratios([1.0 - one.rate_hz / other.rate_hz for one, other in zip(found, base, strict=True)])
            added[key] = _ratios([one.cpu_s / other.cpu_s - 1.0 for one, other in zip(found, base, strict=True)])
            rate_hz, cpu_s = (
                statistics.median(one.rate_hz for one in found),
                statistics.median(one.cpu_s for one in found),
            )
            shown = ("", "") if name == names[0] else (_shown(lost[key]), _shown(added[key]))
            table.add_row(name, protocol, f"{rate_hz:,.0f}", shown[0], f"{cpu_s * 1e6:.1f}", shown[1])
    Console(width=130).print(table)
    rows = [
        {"observes": name, "protocol": protocol, "lost": lost[name, protocol], "cpu_added": added[name, protocol]}
        for name, protocol in lost
    ]
    _write(rows, samples, parsed.output)
    worst = max(lost[names[1], protocol]["median"] for protocol in _PROTOCOLS)
    is_kept = worst <= _BAR
    verdict = f"the bar is {_BAR:.0%}: {'kept' if is_kept else 'MISSED'}"
    print(f"metrics and decisions cost {worst:.1%} of throughput at the most; {verdict}")  # noqa: T201 - a command line
    return 0 if is_kept else 1


def _write(rows: Sequence[dict[str, Any]], samples: Samples, output: Path) -> None:
    document = {
        **describe_run("python -m loadtests.observability_bench", sys.argv[1:]),
        "bar_lost_ratio": _BAR,
        "rows": rows,
        "samples": {
            f"{name}, {protocol}": [[one.rate_hz, one.cpu_s] for one in found]
            for (name, protocol), found in samples.items()
        },
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(document, indent=1) + "\n")


def _ratios(values: Sequence[float]) -> dict[str, float]:
    """Return the median over rounds with its 95 % interval."""
    low, high = percentile_interval(np.sort(np.array(values)), 0.5)
    return {"median": statistics.median(values), "low": low, "high": high}


def _shown(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:+.1%} ({ratio['low']:+.1%} to {ratio['high']:+.1%})"


if __name__ == "__main__":
    sys.exit(main())
