"""The terminal form of the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from variants.figures import figures, summary

if TYPE_CHECKING:
    from rich.console import RenderableType

    from variants.manifest import ModelManifest

ALWAYS: Final = ("variant", "file", "memory", "p50")
WHEN_WIDE: Final = ("download", "MACs", "p99", "speed-up", "lost / gained", "1 % verdict", "routing")
WIDE: Final = 150
STYLES: Final = {"routable": "green", "dominated": "yellow", "rejected": "red"}


def draw_table(manifest: ModelManifest, width: int) -> tuple[RenderableType, ...]:
    """Return the table, why each variant is in or out of routing, and where the figures come from.

    ``width`` is the terminal's, in characters; a narrow one gets fewer columns.
    """
    shown = {*ALWAYS, manifest.metric, *(WHEN_WIDE if width >= WIDE else ())}
    columns = [figure for figure in figures(manifest) if figure.heading in shown]
    table = Table(title=f"{manifest.model} version {manifest.version}", title_justify="left", box=SIMPLE_HEAD)
    for figure in columns:
        table.add_column(
            figure.heading, no_wrap=True, justify="left" if figure.heading in {"variant", "routing"} else "right"
        )
    for number, variant in enumerate(manifest.variants):
        cells = [figure.texts[number] for figure in columns]
        table.add_row(*cells[:-1], Text(cells[-1], style=STYLES[variant.routing.state]))
    reasons = "\n".join(f"{v.name} ({v.routing.state}): {v.routing.reason}" for v in manifest.variants)
    return table, Text(reasons), Text(summary(manifest), style="dim")
