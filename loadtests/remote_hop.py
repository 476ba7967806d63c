"""What a variant on another server costs, and how soon traffic moves when that server is killed.

``python -m loadtests.remote_hop`` serves a built model and measures one pinned variant with one connection: computed in
the gateway, and on a second gateway and on a real Triton, by gRPC and HTTP. Every target is asked once in each round,
so that a slow moment of the machine hits all of them. Then the second gateway is killed under load, as often as asked,
and started again: the longest pause between two answers and the requests that failed are what clients saw.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml
from rich.console import Console
from rich.table import Table

from loadtests import processes
from loadtests.h2load import LoadError
from loadtests.overhead import find_model
from loadtests.peers import triton
from loadtests.peers.environments import NotAvailable
from loadtests.record import describe_run
from loadtests.servers import one_row
from service.interrupts import heard_as_interrupts

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

_OK: Final = 200
_PATIENT: Final = {"x-latency-budget-ms": "5000"}
_SETTLED: Final = 200
"""Requests of one connection before a kill, and after it, that show where traffic goes."""


@dataclass
class Server:
    """A server of the protocol at its ports."""

    command: processes.Command
    http: int
    grpc: int


@dataclass
class Target:
    """A way to the variant; ``process`` is the gateway that is asked, whose CPU time counts."""

    name: str
    port: int
    process: psutil.Process
    times_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0


@dataclass(frozen=True)
class Question:
    """One plain request for one variant of a model, or for the model where there is none."""

    path: str
    body: bytes

    def ask(self, connection: http.client.HTTPConnection) -> str:
        """Ask; return who answered, '' where nobody did."""
        connection.request("POST", self.path, self.body, _PATIENT)
        response = connection.getresponse()
        content = response.read()
        return str(json.loads(content)["parameters"]["variant"]) if response.status == _OK else ""


def gateway(repository: Path, folder: Path, *flags: str) -> Server:
    """Return a gateway that is not started yet."""
    ports = processes.free_port(), processes.free_port()
    arguments = [sys.executable, "-m", "service.cli", "serve", str(repository), "--http-port", str(ports[0])]
    arguments += ["--grpc-port", str(ports[1]), "--admin-port", "0", *flags]
    command = processes.Command(arguments, ports[0], "/v2/health/ready", log=folder / f"{ports[0]}.log")
    return Server(command, *ports)


def real_triton(parsed: argparse.Namespace, folder: Path) -> Server:
    """Return a Triton with the exported variant, not started yet.

    Raises:
        NotAvailable: There is none for this machine.
    """
    installed, models = triton.prepare(parsed.peers), folder / "models"
    export = [sys.executable, "-m", "service.cli", "export", parsed.model, "--to", "triton", "--form", "python"]
    export += ["--repository", str(parsed.repository), "--variant", parsed.variant, "--output", str(models)]
    export += ["--site-packages", str(installed.site_packages)]
    subprocess.run(export, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own program
    ports = triton.Ports.free()
    return Server(triton.command(installed, models, ports, folder / "triton.log"), ports.http, ports.grpc)


def remotes_file(parsed: argparse.Namespace, folder: Path, address: str) -> str:
    """Write a remotes file that names one endpoint; return its path."""
    path = folder / f"{address.rpartition(':')[2]}.yaml"
    path.write_text(yaml.safe_dump({"remotes": {parsed.model: {parsed.variant: {"endpoints": [address]}}}}))
    return str(path)


@contextlib.contextmanager
def targets(parsed: argparse.Namespace, folder: Path) -> Iterator[list[Target]]:
    """Start every server and a gateway before each; yield what is to be asked."""
    backends = {"a gateway": gateway(parsed.repository, folder)}
    try:
        backends["Triton"] = real_triton(parsed, folder)
    except NotAvailable as error:
        print(f"remote_hop: without Triton: {error}", file=sys.stderr)  # noqa: T201 - a command line
    with contextlib.ExitStack() as stack:
        local = gateway(parsed.repository, folder)
        found = [Target("in the gateway", local.http, stack.enter_context(processes.running(local.command)))]
        for name, backend in backends.items():
            stack.enter_context(processes.running(backend.command))
            for protocol, port in (("grpc", backend.grpc), ("http", backend.http)):
                flags = ("--remotes", remotes_file(parsed, folder, f"{protocol}://127.0.0.1:{port}"))
                front = gateway(parsed.repository, folder, *flags)
                process = stack.enter_context(processes.running(front.command))
                found.append(Target(f"{name}, {protocol}", front.http, process))
        yield found


def measure(target: Target, question: Question, requests: int) -> None:
    """Ask one request after the other, and add up latency and the gateway's CPU time."""
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=60)
    with contextlib.closing(connection):
        question.ask(connection)
        before = target.process.cpu_times()
        for _ in range(requests):
            start_s = time.perf_counter()
            if not question.ask(connection):
                raise LoadError(f"{target.name} answered with an error")
            target.times_s.append(time.perf_counter() - start_s)
        after = target.process.cpu_times()
    target.cpu_s += after.user + after.system - before.user - before.system


def fail_over(parsed: argparse.Namespace, folder: Path, question: Question) -> dict[str, Any]:
    """Kill the server under load and start it again, time and again; return what clients saw."""
    backend = gateway(parsed.repository, folder)
    flags = ("--remotes", remotes_file(parsed, folder, f"grpc://127.0.0.1:{backend.grpc}"))
    front = gateway(parsed.repository, folder, *flags)
    seen: list[tuple[float, str]] = []
    stop, pauses_s, kills_s = threading.Event(), list[float](), list[float]()

    def keep_asking() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", front.http, timeout=60)
        while not stop.is_set():
            seen.append((time.perf_counter(), question.ask(connection)))

    def settle(wanted: bool) -> None:
        """Wait until only the remote variant answers, or only others."""
        start = len(seen)
        while len(seen) < start + _SETTLED or any((name == parsed.variant) != wanted for _, name in seen[-_SETTLED:]):
            time.sleep(0.01)

    thread = threading.Thread(target=keep_asking, daemon=True)  # it must not outlive an interruption
    with contextlib.ExitStack() as stack:
        with processes.running(backend.command) as process:
            stack.enter_context(processes.running(front.command))
            thread.start()
            settle(wanted=True)
            kills_s.append(kill(process))
            settle(wanted=False)
        for _ in range(parsed.kills - 1):
            with processes.running(backend.command) as process:
                settle(wanted=True)
                kills_s.append(kill(process))
                settle(wanted=False)
        stop.set()
        thread.join()
    moments = [moment for moment, name in seen if name]
    for kill_s in kills_s:
        near = [moment for moment in moments if kill_s - 1.0 < moment < kill_s + 2.0]
        pauses_s.append(max(later - earlier for earlier, later in itertools.pairwise(near) if later > kill_s))
    return {
        "kills": len(kills_s),
        "pauses_s": pauses_s,
        "failed": sum(not name for _, name in seen),
        "asked": len(seen),
    }


def kill(process: psutil.Process) -> float:
    """Kill a server; return when."""
    moment_s = time.perf_counter()
    process.kill()
    return moment_s


@heard_as_interrupts()
def main() -> int:
    """Run the benchmark; print the tables and write the JSON where one is asked for."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.remote_hop", description=__doc__.splitlines()[0])
    parser.add_argument("--repository", type=Path, default=Path("repository"))
    parser.add_argument("--model", default="digits")
    parser.add_argument("--variant", default="full", help="the most accurate one: with it traffic moves")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=400, help="to each target in each round")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--peers", type=Path, default=Path(".peers"))
    parser.add_argument("--output", type=Path, help="for instance loadtests/results/remote-hop.json")
    parsed = parser.parse_args()
    _, manifest = find_model(parsed.repository, parsed.model)
    row = one_row(manifest)
    tensor = {"name": manifest.inputs[0].name, "shape": list(row.shape), "datatype": manifest.inputs[0].datatype}
    body = json.dumps({"inputs": [tensor | {"data": row.ravel().tolist()}]}).encode()
    with tempfile.TemporaryDirectory() as folder:
        pinned = Question(f"/v2/models/{parsed.model}--{parsed.variant}/infer", body)
        with targets(parsed, Path(folder)) as found:
            for _ in range(parsed.rounds):
                for target in found:
                    measure(target, pinned, parsed.requests)
        moves = fail_over(parsed, Path(folder), Question(f"/v2/models/{parsed.model}/infer", body))
    report(parsed, found, moves)
    return 0


def report(parsed: argparse.Namespace, found: list[Target], moves: dict[str, Any]) -> None:
    """Print what was measured."""
    table = Table(title=f"{parsed.model}--{parsed.variant}, one row, one connection")
    for column in ("computed", "p50 ms", "p99 ms", "gateway's CPU us per request"):
        table.add_column(column, justify="left" if column == "computed" else "right")
    rows = []
    for target in found:
        cuts_s = statistics.quantiles(target.times_s, n=100)
        rows.append((target.name, cuts_s[49], cuts_s[98], target.cpu_s / len(target.times_s)))
        table.add_row(target.name, *(f"{value * 1e3:.3f}" for value in rows[-1][1:3]), f"{rows[-1][3] * 1e6:.0f}")
    console = Console(width=110)
    console.print(table)
    pauses = ", ".join(f"{pause_s * 1e3:.1f}" for pause_s in moves["pauses_s"])
    console.print(f"{moves['kills']} kills: longest pauses {pauses} ms; {moves['failed']} of {moves['asked']} failed")
    if parsed.output:
        columns = ("computed", "p50_s", "p99_s", "cpu_s")
        document = {
            **describe_run("python -m loadtests.remote_hop", sys.argv[1:]),
            "hops": [dict(zip(columns, row, strict=True)) for row in rows],
            "fail_over": moves,
        }
        parsed.output.parent.mkdir(parents=True, exist_ok=True)
        parsed.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
