"""Before and after as one SVG: effective accuracy over the unseen arrivals, under the base and the tuned policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from loadtests.svg import Axis, Plot
from loadtests.tuner.judge import SEED_OFFSET, SEEDS
from loadtests.tuner.score import credit, play

if TYPE_CHECKING:
    from loadtests.tuner.question import Question
    from service.domain.policy_file import ModelPolicy

_BINS: Final = 48
_WIDTH, _HEIGHT = 860, 320
_STYLE: Final = """<style>
svg{background:#fff;font:12px system-ui,sans-serif}
.grid{stroke:#d8dde1}.tick{fill:#55606a}
polyline{fill:none;stroke-width:2}.s0{stroke:#b5562b}.s1{stroke:#1f6fb2}
.key0{fill:#b5562b}.key1{fill:#1f6fb2}
@media(prefers-color-scheme:dark){svg{background:#15191c}.grid{stroke:#343b41}.tick{fill:#9aa5ad}
.s0{stroke:#e08a5b}.s1{stroke:#62aee8}.key0{fill:#e08a5b}.key1{fill:#62aee8}}
</style>"""


def draw(question: Question, base: ModelPolicy, tuned: ModelPolicy) -> str:
    """Return the plot of the first judging workload: stretches of equally many requests, under the judge's luck."""
    load = question.judging[0]
    bins = [part for part in np.array_split(np.arange(len(load)), _BINS) if len(part)]
    at = [float(part.mean()) for part in bins]
    curves = []
    for policy in (base, tuned):
        played = [play(question, policy, load, SEED_OFFSET * (seed + 1)) for seed in range(SEEDS)]
        gained = np.mean([credit(result, question.limits) for result in played], axis=0)
        curves.append([float(gained[part].mean()) for part in bins])
    low, high = min(map(min, curves)), max(map(max, curves))
    room = 0.08 * (high - low or abs(high) or 1.0)
    is_cost = question.limits.objective == "cost"
    y = Axis(
        low - 3 * room, high + room, "", lambda value: f"{-1e3 * value:.3g} ms" if is_cost else f"{100 * value:.1f} %"
    )
    title = "unseen requests, in their order"
    plot = Plot(
        _WIDTH, _HEIGHT, Axis(0.0, float(len(load)), title, lambda value: f"{value:g}"), y, "before and after tuning"
    )
    for place, curve in enumerate(curves):
        plot.line(list(zip(at, curve, strict=True)), place)
    figure = "CPU time per request" if is_cost else "effective accuracy"
    keys = (
        f'<text class="key0" x="66" y="{_HEIGHT - 60}">before: {figure} under the base policy</text>'
        f'<text class="key1" x="380" y="{_HEIGHT - 60}">after: under the tuned policy</text>'
    )
    drawn = plot.render().replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    start = drawn.index(">") + 1
    return f"{drawn[:start]}{_STYLE}{drawn[start:].removesuffix('</svg>')}{keys}</svg>\n"
