"""The gateway beside its peers, in one interleaved run: ``python -m loadtests.peer_bench``, or ``make bench-peers``.

Every peer is installed into an environment of its own under ``.peers``, serves the same ONNX file by the same single
threaded runtime call, must answer rightly once, and is then asked by the same client (h2load) over HTTP JSON, HTTP with
binary tensors and gRPC, as far as it speaks them, in rounds A B C A B C. All traffic stays on loopback, and all that is
started is ended, also on Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from loadtests import peer_docs, peer_plot
from loadtests.h2load import LoadError
from loadtests.peer_report import HEADER, bare_lines, cells, lines
from loadtests.peer_rounds import Plan, Results, allowed_cpus, place, run
from loadtests.peers import bentoml_native, gateway, litserve, mlserver, ray_serve, triton
from loadtests.peers.environments import NotAvailable, read_pins
from loadtests.peers.onnx_models import make_models
from loadtests.record import describe_run
from service.interrupts import heard_as_interrupts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtests.peers.environments import Environment
    from loadtests.peers.peer import Peer

PEERS: Final[tuple[Peer, ...]] = (
    *gateway.PEERS, triton.PEER, mlserver.PEER, bentoml_native.PEER, litserve.PEER, ray_serve.PEER,
)  # fmt: skip
PLACEMENTS: Final = {
    "split": "the load generator has a core of its own, and each server all the others",
    "shared": "the load generator and the servers share all cores",
}
_PROGRAM: Final = "python -m loadtests.peer_bench"
_INTERRUPTED: Final = 130


@heard_as_interrupts()
def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare the peers, measure, write the results; return the exit status."""
    parsed = parse(arguments)
    console = Console(stderr=True, highlight=False)
    try:
        document = _read(parsed.results) if parsed.report_only else measure(parsed, console)
        show(document)
        if not parsed.report_only:
            parsed.results.parent.mkdir(parents=True, exist_ok=True)
            parsed.results.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        if parsed.plot:
            peer_plot.draw(document, parsed.plot)
        if parsed.docs:
            peer_docs.rewrite(parsed.docs, document, parsed.plot)
    except (LoadError, OSError, peer_docs.MarksMissing) as error:
        console.print(f"peer_bench: {error}", markup=False)
        return 2
    except KeyboardInterrupt:
        console.print("interrupted; every server is ended, nothing is written")
        return _INTERRUPTED
    return 0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    keys = [peer.key for peer in PEERS]
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__.splitlines()[0])
    parser.add_argument("--peers", nargs="+", default=keys, choices=keys, metavar="PEER", help=f"of {', '.join(keys)}")
    parser.add_argument("--models", nargs="+", default=list(make_models()), choices=list(make_models()))
    parser.add_argument("--protocols", nargs="+", default=list(peer_plot.PROTOCOLS), choices=peer_plot.PROTOCOLS)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration-s", type=float, default=2.0, help="of every row in every round")
    parser.add_argument("--placement", choices=list(PLACEMENTS), default="split", help="of cores")
    parser.add_argument("--cache", type=Path, default=Path(".peers"), help="where the peers are installed")
    parser.add_argument("--results", type=Path, default=Path("loadtests/results/peers.json"))
    parser.add_argument("--plot", type=Path, help="picture to write, .svg or .png")
    parser.add_argument("--docs", type=Path, help="page whose block between the benchmark's marks is rewritten")
    parser.add_argument("--report-only", action="store_true", help="measure nothing; show and write from the results")
    return parser.parse_args(arguments)


def measure(parsed: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure what was asked for; return the document of the results."""
    chosen = [peer for peer in PEERS if peer.key in parsed.peers]
    prepared, missing = prepare(chosen, parsed.cache, console)
    models = make_models()
    plan = Plan(
        tuple(models[name] for name in parsed.models),
        tuple(parsed.protocols),
        tuple(parsed.connections),
        parsed.rounds,
        parsed.duration_s,
        place(parsed.placement, allowed_cpus()),
    )
    facts = describe_run(_PROGRAM, sys.argv[1:])
    results = run(plan, prepared, lambda text: console.print(text, markup=False))
    return {
        **facts,
        "placement": PLACEMENTS[parsed.placement],
        "rounds": parsed.rounds,
        "duration_s": parsed.duration_s,
        "peers": [_described(peer, missing.get(peer.key)) for peer in chosen],
        **_as_rows(results),
    }


def prepare(
    chosen: Sequence[Peer], cache: Path, console: Console
) -> tuple[list[tuple[Peer, Environment]], dict[str, str]]:
    """Install what is missing; return the peers that can be started, and why others cannot."""
    prepared, missing = [], {}
    for peer in chosen:
        console.print(f"{peer.title}: preparing", markup=False)
        try:
            prepared.append((peer, peer.prepare(cache)))
        except NotAvailable as error:
            missing[peer.key] = str(error)
            console.print(f"{peer.title}: not available: {error}", markup=False)
    return prepared, missing


def show(document: dict[str, Any]) -> None:
    """Print the table and what stands beside it."""
    console = Console(width=170, highlight=False)
    table = Table(title=f"commit {document['commit']}, {document['date']}; {document['placement']}")
    for index, column in enumerate(HEADER):
        table.add_column(column, justify="right" if 4 <= index < len(HEADER) - 1 else "left")  # noqa: PLR2004 - names
    before = None
    for line in lines(document):
        cell = (line.model, line.protocol, line.connections)
        if before not in (None, cell):
            table.add_section()
        before = cell
        table.add_row(*cells(line))
    console.print(table)
    for text in bare_lines(document):
        console.print(text)
    for peer in document["peers"]:
        if peer["not_available"]:
            console.print(f"{peer['title']}: not available: {peer['not_available']}", markup=False)
    for what, why in document["failures"].items():
        console.print(f"not measured: {what}: {why}", markup=False)


def _described(peer: Peer, missing: str | None) -> dict[str, Any]:
    is_own = peer in gateway.PEERS
    pins = None if is_own else read_pins(peer.key)
    packages = [] if pins is None else [*pins.alone, *pins.packages]
    return {
        "key": peer.key, "title": peer.title, "setting": peer.setting, "packages": packages, "not_available": missing,
    }  # fmt: skip


def _as_rows(results: Results) -> dict[str, Any]:
    rows = [
        {**asdict(key), "rounds": [asdict(figures) for figures in rounds]} for key, rounds in results.rounds.items()
    ]
    return {"results": rows, "failures": results.failures}


def _read(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LoadError(f"{path} holds no results of this benchmark: {error}") from None
    return document


if __name__ == "__main__":
    sys.exit(main())
