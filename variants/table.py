"""The terminal form of the report: as many columns as fit, each of them whole.

A cut-off figure is worse than none, so columns are added in order of importance while the terminal has room, and the
table says which were left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from variants.figures import cascade_figures, figures, summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from variants.figures import Figure
    from variants.manifest import ModelManifest

METRIC: Final = "{metric}"
BY_IMPORTANCE: Final = (
    "variant", METRIC, "p50", "file", "routing", "memory", "speed-up", "1 % verdict", "p99", "lost / gained",
    "download", "MACs", "parameters", "0.1 % verdict",
)  # fmt: skip
PREDICTED: Final = "predicted p50"
CASCADES_BY_IMPORTANCE: Final = (
    "answers", "escalates to", METRIC, "expected p50", "escalated", "speed-up", "margin below",
    "lost / gained", "cascade",
)  # fmt: skip
WORDS: Final = frozenset({"variant", "routing", "cascade", "answers", "escalates to"})
BETWEEN: Final = 2  # characters between columns
STYLES: Final = {"routable": "green", "dominated": "yellow", "rejected": "red"}


def draw_table(manifest: ModelManifest, width: int) -> tuple[RenderableType, ...]:
    """Return the tables of variants and cascades, why a variant is in or out of routing, and where figures come from.

    ``width`` is the terminal's, in characters; a narrow one gets fewer columns.
    """
    every = figures(manifest)
    beside = tuple(manifest.variants[0].accuracy.beside)
    predicted = tuple(figure.heading for figure in every if figure.heading == PREDICTED)
    wanted = (*BY_IMPORTANCE[:2], *beside[:1], *BY_IMPORTANCE[2:3], *predicted, *BY_IMPORTANCE[3:])
    columns = choose_columns(every, manifest.metric, width, wanted)
    tables = [_draw(f"{manifest.model} version {manifest.version}", columns)]
    if manifest.cascades:
        pairs = choose_columns(cascade_figures(manifest), manifest.metric, width, CASCADES_BY_IMPORTANCE)
        tables.append(_draw("\ncascades: one variant answers; where it is unsure, another is asked", pairs))
    reasons = "\n".join(f"{v.name} ({v.routing.state}): {v.routing.reason}" for v in manifest.variants)
    left_out = [figure.heading for figure in every if figure not in columns]
    notes = summary(manifest) + (f"\nno room for: {', '.join(left_out)}" if left_out else "")
    return *tables, Text(f"\n{reasons}\n"), Text(notes, style="dim")


def _draw(title: str, columns: Sequence[Figure]) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    for figure in columns:
        table.add_column(figure.heading, no_wrap=True, justify="left" if figure.heading in WORDS else "right")
    for number in range(len(columns[0].texts)):
        table.add_row(*(Text(figure.texts[number], style=STYLES.get(figure.texts[number], "")) for figure in columns))
    return table


def choose_columns(
    every: Sequence[Figure], metric: str, width: int, by_importance: Sequence[str] = BY_IMPORTANCE
) -> tuple[Figure, ...]:
    """Return the columns that fit ``width`` characters uncut: the most important that do, in their usual order."""
    by_heading = {figure.heading: figure for figure in every}
    chosen: list[str] = []
    room = width + BETWEEN
    for name in by_importance:
        figure = by_heading[metric if name == METRIC else name]
        needed = max(map(len, (figure.heading, *figure.texts))) + BETWEEN
        if needed <= room or not chosen:
            chosen.append(figure.heading)
            room -= needed
    return tuple(figure for figure in every if figure.heading in chosen)
