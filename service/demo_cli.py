"""``tiergate demo``: the whole way of a model and of a request, in one command."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from service.interrupts import heard_as_interrupts

if TYPE_CHECKING:
    import argparse
    import subprocess

    from rich.console import Console

    from service.demo import Question, Reply, Server
    from variants.recipe import Examples

_REFUSED: Final = 2
_DEFAULT_PORTS: Final = (8000, 8001, 8002)
# The first scan of scikit-learn's digits, a zero.
_DIGIT: Final = (
    "0,0,5,13,9,1,0,0,0,0,13,15,10,15,5,0,0,3,15,2,0,11,8,0,0,4,12,0,0,8,8,0,"
    "0,5,8,0,0,9,8,0,0,4,11,0,1,12,7,0,0,2,14,5,10,12,0,0,0,0,6,13,10,0,0,0"
)
_COLUMNS: Final = ("via", "asked", "variant", "why", "predicted ms", "real ms", "in budget", "digit", "right")
_MOST_TELLING: Final = ("asked", "variant", "why", "real ms", "in budget", "right")
"""What a narrow terminal has room for."""
_WHOLE: Final = frozenset({"via", "variant", "why"})
_WIDE: Final = 115


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``demo``."""
    parser = subparsers.add_parser(
        "demo",
        help="build the demo model, serve it, ask it, show who answered",
        description="Build the digits model's variants, serve them on this machine, ask with different budgets, "
        "hardware and accuracy floors over HTTP and gRPC, and print who answered and why.",
    )
    parser.add_argument(
        "--repository", type=Path, default=Path("repository"), help="where to build (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the build (default: %(default)s)")
    parser.add_argument(
        "--keep", action="store_true", help="leave the gateway running on its default ports until Ctrl-C"
    )
    parser.set_defaults(run=_run)


@heard_as_interrupts()
def _run(parsed: argparse.Namespace) -> int:
    from rich.console import Console

    from service.demo import DemoError, running_server
    from variants.errors import BuildError

    console = Console(highlight=False)
    try:
        examples = _build(parsed, console)
        ports = _DEFAULT_PORTS if parsed.keep else (0, 0, 0)
        with running_server(parsed.repository, ports) as (server, process):
            _show(server, examples, console)
            _show_next(server, parsed, console)
            if parsed.keep:
                _keep(process, console)
    except (BuildError, DemoError) as error:
        print(f"tiergate demo: {error}", file=sys.stderr)
        return _REFUSED
    return 0


def _build(parsed: argparse.Namespace, console: Console) -> Examples:
    """Build the variants, show them, and return the test rows."""
    from variants.sources.recipes import load_recipe

    recipe = load_recipe("digits")  # first, because it says which extra is missing
    from variants.build import BuildOptions, build_model
    from variants.progress import choose_progress
    from variants.table import draw_table

    start_s = time.monotonic()
    result = build_model(
        recipe, parsed.repository, BuildOptions(seed=parsed.seed), choose_progress(sys.stderr, quiet=False)
    )
    what = f"built in {time.monotonic() - start_s:.0f} s" if result.is_new else "already built"
    console.print(f"\n[bold]The variants of {recipe.name}[/bold] ({what}, in {result.folder})")
    console.print(*draw_table(result.manifest, console.width), sep="\n")
    return _shuffled(recipe.load(parsed.seed).test, parsed.seed)


def _shuffled(examples: Examples, seed: int) -> Examples:
    import numpy as np

    order = np.random.default_rng(seed).permutation(len(examples))
    return replace(examples, inputs=examples.inputs[order], labels=examples.labels[order])


def _show(server: Server, examples: Examples, console: Console) -> None:
    """Ask every question and print the table."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from service.demo import Clients, burst, choose_questions

    columns = _COLUMNS if console.width >= _WIDE else _MOST_TELLING
    table = Table(
        title="Who asked what, and who answered",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    for column in columns:
        table.add_column(column, justify="right" if "ms" in column else "left", no_wrap=column in _WHOLE)
    clients = Clients(server)
    try:
        questions = choose_questions(server)
        for index, question in enumerate(questions):
            reply = clients.ask(question, examples.inputs[index])
            cells = _cells(question, reply, int(examples.labels[index]))
            table.add_row(*(cells[column] for column in columns))
        budget_ms = max(float(item.parameters.get("latency_budget_ms", 0.0)) for item in questions)
    finally:
        clients.close()
    console.print(table)
    answered, in_time, right = burst(server, examples.inputs, examples.labels, budget_ms)
    total = sum(answered.values())
    who = ", ".join(f"{name} {count}" for name, count in answered.most_common())
    console.print(
        f"\nA burst of {total} requests at once, budget {budget_ms:g} ms each: {in_time} in time, {right} right; "
        f"answered by {who}.\n"
    )


def _cells(question: Question, reply: Reply, label: int) -> dict[str, str]:
    """Return what the table shows of a question, by column."""
    answer = reply.answer
    if reply.refused:
        return dict.fromkeys(_COLUMNS, "") | {
            "via": question.via, "asked": question.asks, "variant": "nobody", "why": f"refused: {reply.refused}",
        }  # fmt: skip
    return {
        "via": question.via,
        "asked": question.asks,
        "variant": str(answer["variant"]),
        "why": str(answer["reason"]),
        "predicted ms": f"{float(answer['predicted_ms']):.2f}",
        "real ms": f"{float(answer['total_ms']):.2f}",
        "in budget": "yes" if answer["budget_met"] else "no",
        "digit": str(reply.digit),
        "right": "yes" if reply.digit == label else f"no, it is {label}",
    }


def _show_next(server: Server, parsed: argparse.Namespace, console: Console) -> None:
    http = server.http if parsed.keep else "127.0.0.1:8000"
    grpc = server.grpc if parsed.keep else "127.0.0.1:8001"
    if not parsed.keep:
        console.print(f"Try it yourself:  [bold]tiergate serve {parsed.repository}[/bold]   then")
    console.print(
        f"""
curl -s 'http://{http}/v2/models/digits/route?budget_ms=2'

curl -s http://{http}/v2/models/digits/infer -H 'Content-Type: application/json' -d '{{
  "parameters": {{"latency_budget_ms": 2}},
  "inputs": [{{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32",
    "data": [{_DIGIT}]}}]}}'

import numpy as np, tritonclient.grpc as triton
image = triton.InferInput("image", [1, 1, 8, 8], "FP32")
image.set_data_from_numpy(np.zeros((1, 1, 8, 8), np.float32))
result = triton.InferenceServerClient("{grpc}").infer("digits", [image], parameters={{"latency_budget_ms": 2}})
print(result.as_numpy("logits"), result.get_response().parameters["variant"].string_param)
""",
        markup=False,
        soft_wrap=True,
    )


def _keep(process: subprocess.Popen[str], console: Console) -> None:
    """Leave the gateway running until it ends or the user does."""
    console.print("The gateway is running; Ctrl-C ends it.")
    try:
        process.wait()
    except KeyboardInterrupt:
        console.print("Ending.")
