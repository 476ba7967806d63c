"""The results as Markdown: the bars, every variant that was timed, every int8 file, and where figures come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from loadtests.building.bars import all_bars, int8_pairs, timed_cells
from loadtests.building.ordering import compare_orders
from loadtests.building.timing import headline, p50, ratio
from loadtests.marked_page import Marks, image, table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MARKS: Final = Marks("bench-build")
MOST_SHOWN: Final = 12
WORDS: Final = "accuracy against size and speed, every variant of every bundled model, full at (1, 0)"


def rewrite(page: Path, parts: Mapping[str, Any], picture: Path | None) -> None:
    """Put the results between the marks of a page.

    Raises:
        MarksMissing: The page has no place for them.
    """
    shown = [] if picture is None else [image(page, picture, WORDS)]
    MARKS.rewrite(page, [text(parts), *shown, ""])


def text(parts: Mapping[str, Any]) -> str:
    """Return the results as Markdown."""
    bars = [[bar.what, bar.asked, bar.measured, bar.verdict, ", ".join(bar.parts)] for bar in all_bars(parts)]
    header = ("figure", "asked", "measured", "bar", "of parts")
    blocks = [table(header, bars, left=len(header)), _sources(parts), _variants(parts), _pairs(parts), _orders(parts)]
    return "\n\n".join("\n".join(lines) for lines in blocks if lines)


def _sources(parts: Mapping[str, Any]) -> list[str]:
    """Return a line for each run that the figures come from."""
    lines: dict[str, list[str]] = {}
    for part, models in parts.items():
        for model, entry in models.items():
            run = entry.get("run")
            if run is not None:
                told = (
                    f"{part}: `{run['command']}`, commit {run['commit']}, {run['date']}, {run['machine']['cpu']}, "
                    f"{run['machine']['cores']} cores, load average {run['load_average']:.1f}"
                )
                lines.setdefault(told, []).append(model)
    built = [f"{model} ({_built(facts)})" for model, facts in parts.get("build", {}).items()]
    return [
        f"- build: `tiergate build MODEL`, seed 0: {', '.join(built)}",
        *(f"- {x} ({', '.join(y)})" for x, y in lines.items()),
    ]


def _built(facts: Mapping[str, Any]) -> str:
    again = facts.get("measured_at")
    measured = "" if again is None else f"latency measured again {again[:10]}, "
    return f"{facts['built_at'][:10]}, {facts['rows']:,} test rows, {measured}load average {facts['load_average']:.1f}"


def _variants(parts: Mapping[str, Any]) -> list[str]:
    rows = []
    for model, facts in parts.get("build", {}).items():
        cells = timed_cells(parts, model)
        if cells is None:
            continue
        cell = headline(cells)
        full = facts["variants"]["full"]
        for name in cell["blocks_s"]:
            one, faster = facts["variants"][name], ratio(cell, "full", name)
            rows.append(
                [
                    f"{model} {name}",
                    f"{one['file_bytes'] / 1024:,.0f}",
                    f"{full['file_bytes'] / one['file_bytes']:.1f}",
                    f"{1e3 * cell['predicted_s'][name]:.3g}",
                    f"{1e3 * p50(cell, name):.3g}",
                    f"{faster.value:.2f} ({faster.low:.2f}-{faster.high:.2f})",
                    f"{100 * one['accuracy']:.2f}",
                    f"{one['lost']} / {one['gained']}",
                ]
            )
    header = (
        "variant", "file, KiB", "times smaller", "p50 in the manifest, ms", "p50 here, ms", "times faster (95 %)",
        "accuracy, %", "lost / gained",
    )  # fmt: skip
    return table(header, rows, left=1) if rows else []


def _pairs(parts: Mapping[str, Any]) -> list[str]:
    rows = [
        [f"{pair.model} {pair.name}", pair.parent, f"{100 * pair.kept:.2f}", f"{pair.faster.value:.2f}"]
        for pair in int8_pairs(parts)
    ]
    return table(("int8 file", "made from", "accuracy kept, %", "times faster"), rows, left=2) if rows else []


def _orders(parts: Mapping[str, Any]) -> list[str]:
    models = {model: cells for model in parts.get("build", {}) if (cells := timed_cells(parts, model)) is not None}
    wrong = compare_orders(models).contradictions
    lines = [f"- {line}" for line in wrong[:MOST_SHOWN]]
    more = [f"- and {len(wrong) - MOST_SHOWN} more"] if len(wrong) > MOST_SHOWN else []
    return ["Pairs that the manifests have in the wrong order:", "", *lines, *more] if wrong else []
