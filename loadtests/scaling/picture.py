"""The days as one SVG: replicas over the day, scaling alone and with tiers at equal attainment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loadtests.scaling.contest import TIERS, rival
from loadtests.svg import Axis, Plot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtests.scaling.contest import Entry
    from loadtests.scaling.day import Day

_WIDTH, _HEIGHT, _TITLE = 860, 260, 22
_POINTS: Final = 720
_STYLE: Final = """<style>
svg{background:#fff;font:12px system-ui,sans-serif}
.grid{stroke:#d8dde1}.tick{fill:#55606a}.title{font-weight:600}
polyline{fill:none;stroke-width:2}.s0{stroke:#b5562b}.s1{stroke:#1f6fb2}
.key0{fill:#b5562b}.key1{fill:#1f6fb2}
@media(prefers-color-scheme:dark){svg{background:#15191c}.grid{stroke:#343b41}.tick,.title{fill:#9aa5ad}
.s0{stroke:#e08a5b}.s1{stroke:#62aee8}.key0{fill:#e08a5b}.key1{fill:#62aee8}}
</style>"""


def draw(days: Mapping[str, list[Entry]]) -> str:
    """Return the picture; of the tiers, the way with the fewest replica-hours, beside its rival."""
    parts = []
    for place, (trace, entries) in enumerate(days.items()):
        tiers = min((item for item in entries if item.name == TIERS), key=lambda item: item.day.replica_hours)
        drawn = _plot(trace, [rival(entries, tiers), tiers])
        parts.append(f'<g transform="translate(0 {place * (_HEIGHT + _TITLE)})">{drawn}</g>')
    height = len(parts) * (_HEIGHT + _TITLE)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}">'
    )
    return f"{head}{_STYLE}{''.join(parts)}</svg>\n"


def _plot(trace: str, entries: list[Entry]) -> str:
    most = max(int(item.day.replicas.max()) for item in entries)
    plot = Plot(
        _WIDTH,
        _HEIGHT,
        Axis(0.0, 24.0, "hour", lambda value: f"{value:g}"),
        Axis(0.0, 1.05 * most, "", lambda value: f"{value:g}"),
        f"replicas, {trace}",
    )
    keys = []
    for place, item in enumerate(entries):
        series = 1 if item.name == TIERS else 0
        plot.line(_points(item.day), series)
        told = f"{item.name}: {item.day.replica_hours:.0f} replica-hours, {100 * item.day.attainment:.2f} % in time"
        keys.append(f'<text class="key{series}" x="{200 + 330 * place}" y="15">{told}</text>')
    drawn = plot.render()
    inner = drawn[drawn.index(">") + 1 : drawn.rindex("</svg>")]
    title = f'<text class="title" x="8" y="15">replicas: {trace}</text>'
    return f'{title}{"".join(keys)}<g transform="translate(0 {_TITLE})">{inner}</g>'


def _points(day: Day) -> list[tuple[float, float]]:
    step = max(1, len(day.replicas) // _POINTS)
    return [
        (24.0 * second / len(day.replicas), float(day.replicas[second])) for second in range(0, len(day.replicas), step)
    ]
