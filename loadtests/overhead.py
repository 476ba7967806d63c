"""What the gateway costs: against the bare runtime call, and beside the bare frontends, in one interleaved run.

``python -m loadtests.overhead`` serves a built model (``make demo`` builds one) by both frontends, and the raw servers
of ``loadtests.peers.raw`` with the same ONNX file, then measures every target in rounds, one after the other, so that a
slow moment of the machine hits all of them. All traffic stays on loopback.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import onnxruntime as ort
from rich.console import Console
from rich.table import Table

from loadtests.h2load import Figures, Load, LoadError, measure
from loadtests.record import describe_run
from loadtests.servers import Servers, one_row
from service.interrupts import heard_as_interrupts
from variants.manifest import ManifestError, ModelManifest, read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtests.shots import Target

    Results = dict[tuple[str, str, int], list[Figures]]

_BARE_RUNS: Final = 3000


@heard_as_interrupts()
def main() -> int:
    """Run the benchmark; print the table and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.overhead", description=__doc__.splitlines()[0])
    parser.add_argument("--repository", type=Path, default=Path("repository"))
    parser.add_argument("--model", default="digits")
    parser.add_argument("--variant", default="distilled")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration-s", type=float, default=2.0)
    parser.add_argument("--output", type=Path, default=Path("loadtests/results/overhead.json"))
    parsed = parser.parse_args()
    try:
        folder, manifest = find_model(parsed.repository, parsed.model)
        with contextlib.ExitStack() as stack:
            targets = Servers(stack, parsed.repository, folder, manifest, parsed.variant).start()
            bare = functools.partial(measure_bare, folder / manifest.variant(parsed.variant).file, manifest)
            results, bare_s = run_rounds(targets, bare, parsed)
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
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as in the gateway's lanes
    session = ort.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
    inputs = {manifest.inputs[0].name: one_row(manifest)}
    times = []
    for _ in range(_BARE_RUNS):
        start_s = time.perf_counter()
        session.run(None, inputs)
        times.append(time.perf_counter() - start_s)
    return statistics.median(times)


def run_rounds(
    targets: Sequence[Target], bare: Callable[[], float], parsed: argparse.Namespace
) -> tuple[Results, list[float]]:
    """Measure every target, and the bare call, once a round; return every round's figures."""
    results: Results = {}
    bare_s = []
    for _ in range(parsed.rounds):
        bare_s.append(bare())
        for count in parsed.connections:
            for target in targets:
                figures = measure(target.shot, Load(count, parsed.duration_s))
                if figures.errors:
                    raise LoadError(f"{target.shot.url} answered {figures.errors} requests with an error")
                results.setdefault((target.name, target.protocol, count), []).append(figures)
    return results, bare_s


def report(results: Results, bare_rounds_s: Sequence[float], parsed: argparse.Namespace) -> None:
    """Print the medians over rounds, and keep every round in the JSON."""
    bare_s = statistics.median(bare_rounds_s)
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
        **describe_run("python -m loadtests.overhead", sys.argv[1:]),
        "bare_s": bare_rounds_s,
        "results": [
            {"server": name, "protocol": protocol, "connections": count, "rounds": [asdict(item) for item in rounds]}
            for (name, protocol, count), rounds in results.items()
        ],
    }
    parsed.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
