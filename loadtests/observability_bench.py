"""What observing costs on the request path: gateways with less and more of it, side by side in one interleaved run.

``make bench-observability`` serves a built model (``make demo`` builds one) by several gateways that differ only in
what they observe, each a process of its own, and asks them in turns: many short rounds ask all of them, in an order
that rotates and turns round, so that a slow moment of the machine hits all alike. Two processes that are configured
alike differ by some percent, by where their objects came to lie; so the kinds that the bar is about have several each,
one for each of the same few hash seeds, and count by their mean. Beside the throughput it takes the CPU time per answer
from the kernel's account of each process, which can be compared even where others use the machine. What is reported
are ratios to the first kind in the same round, and how far its own processes are apart. All traffic stays on loopback.
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

from loadtests.gateway import split_cores
from loadtests.h2load import Load, LoadError, measure
from loadtests.intervals import percentile_interval
from loadtests.marked_page import Marks, MarksMissing, table
from loadtests.overhead import find_model
from loadtests.processes import Command, free_port, running
from loadtests.record import describe_run
from loadtests.servers import shots
from service.interrupts import heard_as_interrupts
from variants.manifest import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psutil

    from loadtests.shots import Target

_PROGRAM: Final = "python -m loadtests.observability_bench"
MARKS: Final = Marks("bench-observability")
_BAR: Final = 0.03
_PROTOCOLS: Final = ("HTTP JSON", "gRPC")
_PATIENT: Final = "default: {default_budget_ms: 60000}\n"
"""Nobody is refused, whatever else the machine does."""
_OFF: Final = ("--no-metrics", "--decisions-kept", "0")
_WARM_UP_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway under test: what it observes, its process, the port for its statistics, what it is asked."""

    kind: str
    process: psutil.Process
    port: int
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn of one gateway: answers per second, and CPU seconds of its process for each answer."""

    rate_hz: float
    cpu_s: float


Samples = dict[tuple[str, str], list[list[Sample]]]
"""By kind and protocol, for each of the kind's processes its samples, one a round."""


@heard_as_interrupts()
def main() -> int:
    """Run the benchmark; write the JSON, and the page; return 1 where metrics and decisions cost too much."""
    parsed = _parse()
    try:
        with contextlib.ExitStack() as stack:
            gateways = _start(stack, parsed)
            samples = _rounds(gateways, parsed)
        rows = summarise(samples)
        _write(rows, samples, parsed.output)
        parts = page(rows, parsed)
        print("\n\n".join(parts))  # noqa: T201 - a command line
        if parsed.docs is not None:
            MARKS.rewrite(parsed.docs, parts)
    except (LoadError, ManifestError, MarksMissing, KeyError, OSError) as error:
        print(f"observability_bench: {error}", file=sys.stderr)  # noqa: T201 - as above
        return 2
    return 0 if _worst(rows) <= _BAR else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__.splitlines()[0])
    parser.add_argument("--repository", type=Path, default=Path("repository"))
    parser.add_argument("--model", default="digits")
    parser.add_argument("--variant", default="distilled")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--processes", type=int, default=3, help="of each kind that the bar is about")
    parser.add_argument("--rounds", type=int, default=32)
    parser.add_argument("--duration-s", type=float, default=0.3)
    parser.add_argument("--output", type=Path, default=Path("loadtests/results/observability.json"))
    parser.add_argument("--docs", type=Path, help="a page with the bench's marks")
    return parser.parse_args()


def _start(stack: contextlib.ExitStack, parsed: argparse.Namespace) -> list[Gateway]:
    """Start the kinds' processes, those of one seed after each other."""
    _, manifest = find_model(parsed.repository, parsed.model)
    collector = stack.enter_context(_collecting())
    policy = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "policy.yaml"
    policy.write_text(_PATIENT)
    kinds = {
        "nothing": _OFF,
        "metrics and decisions": (),
        "and 1 % traced": ("--trace-endpoint", collector, "--trace-ratio", "0.01"),
        "and 100 % traced": ("--trace-endpoint", collector, "--trace-ratio", "1"),
    }
    started = [(seed, kind) for seed in range(parsed.processes) for kind in list(kinds)[: 2 if seed else None]]
    gateways = []
    for seed, kind in started:
        ports = [free_port() for _ in range(3)]
        command = [sys.executable, "-m", "service.cli", "serve", str(parsed.repository), "--log-level", "error"]
        command += [*kinds[kind], "--policy", str(policy)]
        for name, port in zip(("http", "grpc", "admin"), ports, strict=True):
            command += [f"--{name}-port", str(port)]
        server = Command(command, ports[0], "/v2/health/ready", environment={"PYTHONHASHSEED": str(seed)})
        process = stack.enter_context(running(server, split_cores()[1]))
        targets = shots(kind, f"{parsed.model}--{parsed.variant}", manifest, (ports[0], ports[1]))
        wanted = tuple(target for target in targets if target.protocol in _PROTOCOLS)
        gateways.append(Gateway(kind, process, ports[0], wanted))
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
    found: dict[tuple[int, str], list[Sample]] = {}
    load = Load(parsed.connections, parsed.duration_s, warm_up_s=_WARM_UP_S, cpus=frozenset({split_cores()[0]}))
    for number in range(-1, parsed.rounds):  # the first one only warms up
        for place in order_of(number, len(gateways)):
            for target in gateways[place].targets:
                sample = _measure(gateways[place], target, load, parsed.model)
                if number >= 0:
                    found.setdefault((place, target.protocol), []).append(sample)
    samples: Samples = {}
    for (place, protocol), values in sorted(found.items()):
        samples.setdefault((gateways[place].kind, protocol), []).append(values)
    return samples


def order_of(number: int, count: int) -> list[int]:
    """Return the order of a round: it begins one further each time, and goes back in every other rotation."""
    start, places = number % count, list(range(count))
    order = [*places[start:], *places[:start]]
    return order[::-1] if (number // count) % 2 else order


def _measure(gateway: Gateway, target: Target, load: Load, model: str) -> Sample:
    count, used_s = _answered(gateway.port, model), _cpu_s(gateway.process)
    figures = measure(target.shot, load)
    used_s, count = _cpu_s(gateway.process) - used_s, _answered(gateway.port, model) - count
    if figures.errors:
        raise LoadError(f"{target.shot.url} answered {figures.errors} requests with an error")
    return Sample(figures.rate_hz, used_s / count)


def _cpu_s(process: psutil.Process) -> float:
    """Return the CPU seconds of a process's threads, which the kernel counts in nanoseconds."""
    used_ns = 0
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread may have ended
            used_ns += int((task / "schedstat").read_text().split()[0])
    return used_ns / 1e9


def _answered(port: int, model: str) -> int:
    """Return how many answers a gateway has given; its statistics count them whatever else it observes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", f"/v2/models/{model}/stats")
        document = json.loads(connection.getresponse().read())
    return int(document["model_stats"][0]["inference_stats"]["success"]["count"])


def summarise(samples: Samples) -> list[dict[str, Any]]:
    """Return a row for each kind and protocol: medians over rounds of the kind's mean, and its ratio to the first's.

    ``apart`` is how far the kind's processes are apart in throughput: the largest median ratio of two, less 1.
    """
    first, rows = next(iter(samples))[0], []
    for (kind, protocol), processes in samples.items():
        found, base = _means(processes), _means(samples[first, protocol])
        lost = [1.0 - one.rate_hz / other.rate_hz for one, other in zip(found, base, strict=True)]
        added = [one.cpu_s / other.cpu_s - 1.0 for one, other in zip(found, base, strict=True)]
        row = {"observes": kind, "protocol": protocol, "processes": len(processes)}
        row |= {"rate_hz": statistics.median(one.rate_hz for one in found)}
        row |= {"cpu_s": statistics.median(one.cpu_s for one in found)}
        rows.append(row | {"lost": _ratios(lost), "cpu_added": _ratios(added), "apart": _apart(processes)})
    return rows


def _means(processes: Sequence[Sequence[Sample]]) -> list[Sample]:
    """Return each round's mean over the processes."""
    mean = statistics.fmean
    return [
        Sample(mean(one.rate_hz for one in found), mean(one.cpu_s for one in found))
        for found in zip(*processes, strict=True)
    ]


def _apart(processes: Sequence[Sequence[Sample]]) -> float:
    ratios = [
        statistics.median(one.rate_hz / other.rate_hz for one, other in zip(found, processes[0], strict=True))
        for found in processes
    ]
    return max(ratios) / min(ratios) - 1.0


def page(rows: Sequence[dict[str, Any]], parsed: argparse.Namespace) -> list[str]:
    """Return what the page shows."""
    run = describe_run(_PROGRAM, sys.argv[1:])
    machine, first = run["machine"], rows[0]["observes"]
    head = (
        f"`{run['command']}`, commit {run['commit']}, {run['date']}, {machine['cpu']}, {machine['cores']} cores; "
        f"{parsed.model}--{parsed.variant}, {parsed.connections} connections, {parsed.rounds} rounds."
    )
    lines = [
        (
            row["observes"],
            row["protocol"],
            str(row["processes"]),
            f"{row['rate_hz']:,.0f}",
            "" if row["observes"] == first else _shown(row["lost"]),
            f"{row['cpu_s'] * 1e6:.1f}",
            "" if row["observes"] == first else _shown(row["cpu_added"]),
        )
        for row in sorted(rows, key=lambda row: _PROTOCOLS.index(row["protocol"]))
    ]
    header = ("observes", "protocol", "processes", "answers/s", "throughput lost", "CPU us/answer", "CPU added")
    apart, worst = max(row["apart"] for row in rows), _worst(rows)
    said = (
        f"Metrics and decisions cost {worst:.1%} of throughput at the most; the bar of {_BAR:.0%} is "
        f"{'kept' if worst <= _BAR else '**missed**'}. Processes that are configured alike are up to {apart:.1%} apart."
    )
    return [head, "\n".join(table(header, lines, left=2)), said]


def _worst(rows: Sequence[dict[str, Any]]) -> float:
    """Return the share of throughput that the kind after the first loses, of the protocol that loses more."""
    kind = next(row["observes"] for row in rows if row["observes"] != rows[0]["observes"])
    return float(max(row["lost"]["median"] for row in rows if row["observes"] == kind))


def _write(rows: Sequence[dict[str, Any]], samples: Samples, output: Path) -> None:
    document = {
        **describe_run(_PROGRAM, sys.argv[1:]),
        "bar_lost_ratio": _BAR,
        "rows": rows,
        "samples": {
            f"{kind}, {protocol}": [[[one.rate_hz, one.cpu_s] for one in found] for found in processes]
            for (kind, protocol), processes in samples.items()
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
