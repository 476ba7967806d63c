"""The bars: what is asked of the serving engine, what was measured, and what no schedule could exceed.

A bar's measured figure is its worst over the traces and loads that it is asked on; ``where`` names that place. Which
of our forms stands for the product is said once: the tuned one where a policy file was given, else the default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from loadtests.serving.contenders import BEST, COST, FULL, OURS_NAME, PLAIN, PUBLISHED, THRESHOLD, best_of_ours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Cell = Mapping[str, Any]

POINT: Final = 0.01
_CALM_LOADS: Final = ((0.5, 0.9999), (1.0, 0.999))
_BURST_LOADS: Final = (2.0, 3.0)
_COST_LOADS: Final = (0.3, 0.5, 1.0)
_CLOSED: Final = 0.9
_FEWER: Final = 4.0
_SERVED: Final = 3.0
_CHEAPER: Final = 2.5
_GOODPUT: Final = 0.95
_RECOVERY_S: Final = 2.0
_ERROR: Final = 0.15
_COVERAGE: Final = (0.985, 0.995)
_OVERHEAD_S: Final = 0.25e-3
_NO_LOSS: Final = 0.002
"""Of the effective accuracy of two means over a thousand requests or two: less is noise."""
_SMALLEST_GAP: Final = 1e-4
"""Where the oracle is not further than 0.01 points above the best single variant, there is no gap to close."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One line: what is asked, measured, the oracle's figure, and the verdict (``None``: not measured)."""

    what: str
    asked: str
    measured: str
    oracle: str
    is_met: bool | None
    where: str = ""

    @property
    def verdict(self) -> str:
        """The verdict as a word."""
        return "not measured" if self.is_met is None else "met" if self.is_met else "NOT met"


def all_bars(parts: Mapping[str, Any]) -> dict[str, list[Bar]]:
    """Return the bars by table; a part that was not run has none."""
    found: dict[str, list[Bar]] = {}
    if "simulated" in parts:
        simulated = parts["simulated"]
        cells = simulated["cells"]
        found["SLO attainment (simulated)"] = attainment(cells)
        found["Violations under bursts (simulated)"] = violations(cells)
        found["Effective accuracy (simulated)"] = accuracy(cells)
        found["Rate served (simulated)"] = served(simulated["served"])
        found["Cost (simulated)"] = cost(cells)
        ours = best_of_ours(list(simulated["overload"]))
        found["Overload (simulated)"] = overloaded(simulated["overload"][ours])
    if "hindsight" in parts:
        found["Nearness to the oracle where compute times do not vary (simulated)"] = nearness(
            parts["hindsight"]["cells"]
        )
    if "real" in parts:
        found["Real gateway against the simulator"] = agreement(parts["real"]["rows"])
        found["Real gateway against constants"] = constants(parts["real"]["rows"])
        found["Overload (real gateway)"] = overloaded(parts["real"]["overload"])
        if "overload_heavier" in parts["real"]:
            found["Overload (real gateway, always-full)"] = overloaded(parts["real"]["overload_heavier"])
    if "cascades" in parts:
        found["With cascades and without (real gateway)"] = cascades(parts["cascades"]["rows"])
    if "reliability" in parts:
        found["Predicted latency (real gateway)"] = predictions(parts["reliability"]["all"])
    if "idle" in parts:
        found["Idle machine (real gateway)"] = idle(parts["idle"]["p50_s"])
    return found


def attainment(cells: Iterable[Cell]) -> list[Bar]:
    """Return the bars on attainment at half load and at capacity, by trace."""
    bars = []
    for cell in cells:
        for load, asked in _CALM_LOADS:
            if cell["load"] == load:
                value, bound = _ours(cell)["attainment"], cell["oracle"]["attainment"]
                name = f"{cell['trace']}, load {load:g}"
                bars.append(Bar(name, f">= {_percent(asked)}", _percent(value), _percent(bound), value >= asked))
    return bars


def violations(cells: Iterable[Cell]) -> list[Bar]:
    """Return the bars on violations where load is two to three times capacity, by trace and load."""
    bars = []
    for cell in (cell for cell in cells if cell["load"] in _BURST_LOADS):
        place, ours = f"{cell['trace']}, load {cell['load']:g}", 1.0 - _ours(cell)["attainment"]
        bound = _percent(1.0 - min(1.0, cell["oracle"]["attainment"]))
        for name, factor in ((FULL, 10.0), (THRESHOLD, _FEWER), ("slackfit", 1.0)):
            theirs = 1.0 - cell["policies"][name]["attainment"]
            ratio = theirs / ours if ours else math.inf
            is_met = ratio >= factor if factor > 1.0 else ours < theirs or theirs == 0.0
            asked = f">= {factor:g}x fewer than {name}" if factor > 1.0 else f"fewer than {name}"
            told = f"{_percent(ours)} against {_percent(theirs)} ({_ratio(ratio)})"
            bars.append(Bar(place, asked, told, bound, is_met if theirs else True))
    return bars


def accuracy(cells: Iterable[Cell]) -> list[Bar]:
    """Return the bars on effective accuracy: above everyone, near the oracle, most of the gap closed."""
    cells = list(cells)
    bars = []
    for name in PUBLISHED:
        margin, cell = _worst(cells, partial(_margin, name=name))
        bars.append(Bar(f"above {name}", "> 0 points", _points(margin), "", margin > 0, _place(cell)))
    distance, cell = _worst(cells, lambda cell: -_regret(cell))
    told = f"{_points(-distance)} below"
    bound = f"{_percent(cell['oracle']['expected_accuracy'])} expected"
    bars.append(Bar("from the oracle", "<= 1 point", told, bound, -distance <= POINT, _place(cell)))
    open_cells = [cell for cell in cells if gap_closed(cell) is not None]
    if open_cells:
        closed, cell = _worst(open_cells, lambda cell: gap_closed(cell) or 0.0)
        what = "of the gap best single variant to oracle"
        bars.append(Bar(what, f">= {_percent(_CLOSED)}", _percent(closed), "100 %", closed >= _CLOSED, _place(cell)))
    return bars


def nearness(cells: Iterable[Cell]) -> list[Bar]:
    """Return, by trace and load, how near the oracle's bounds ours comes, and the best single variant."""
    bars = []
    for cell in cells:
        oracle, ours, distance = cell["oracle"], _ours(cell), _regret(cell)
        best = _points(oracle["expected_accuracy"] - _of(cell, BEST)["expected_accuracy"])
        told, bound = f"{_points(distance)}; best single variant {best}", _percent(oracle["expected_accuracy"])
        bars.append(Bar("accuracy below the oracle", "<= 1 point", told, bound, distance <= POINT, _place(cell)))
        theirs, least = 1.0 - _of(cell, THRESHOLD)["attainment"], 1.0 - min(1.0, oracle["attainment"])
        if cell["load"] not in _BURST_LOADS or not theirs:
            continue
        most = theirs / least if least > _SMALLEST_GAP else math.inf
        ratio = theirs / (1.0 - ours["attainment"]) if ours["attainment"] < 1.0 else math.inf
        bound = f"{_ratio(most)} at most" if most < math.inf else _ratio(most)
        asked = f">= {_FEWER:g}x fewer than {THRESHOLD}"
        bars.append(Bar("violations", asked, _ratio(ratio), bound, ratio >= _FEWER, _place(cell)))
    return bars


def served(searches: Iterable[Mapping[str, Any]]) -> list[Bar]:
    """Return the bars on the rate served at 99 % on time and one point less accuracy, by trace."""
    bars = []
    for found in searches:
        loads = found["loads"]
        ours, full = loads[best_of_ours(list(loads))], loads[FULL]
        ratio = ours / full if full else math.inf
        told = f"{_ratio(ratio)} (load {ours:.2f} against {full:.2f})"
        bound = _ratio(found["oracle"] / full) if full else f"load {found['oracle']:.2f}"
        is_met = ratio >= _SERVED and ours > 0
        bars.append(Bar(found["trace"], f">= {_SERVED:g}x always-full", told, bound, is_met))
    return bars


def cost(cells: Iterable[Cell]) -> list[Bar]:
    """Return the bars on CPU-seconds per on-time correct answer under the objective ``cost``."""
    bars = []
    for cell in (cell for cell in cells if cell["load"] in _COST_LOADS):
        cheap, full = _of(cell, COST), _of(cell, FULL)
        lost = _ours(cell)["effective_accuracy"] - cheap["effective_accuracy"]
        ratio = full["cpu_s_per_good_answer"] / max(cheap["cpu_s_per_good_answer"], 1e-12)
        bound = full["cpu_s_per_good_answer"] / max(cell["least_cpu_s"], 1e-12)
        told = f"{_ratio(ratio)}, {_points(lost)} lost"
        is_met = ratio >= _CHEAPER and lost <= POINT
        bars.append(Bar(_place(cell), f">= {_CHEAPER:g}x fewer, <= 1 point lost", told, _ratio(bound), is_met))
    return bars


def overloaded(found: Mapping[str, Any]) -> list[Bar]:
    """Return the bars on goodput far beyond the peak, and on the recovery."""
    peak_hz, bars = found["peak_hz"], []
    for multiple, value_hz in found["goodput_hz"].items():
        share = None if value_hz is None else value_hz / peak_hz
        told = "the generator cannot send so much" if share is None else f"{_percent(share)} of {peak_hz:,.0f}/s"
        is_met = None if share is None else share >= _GOODPUT
        bars.append(Bar(f"goodput at {multiple}x", f">= {_percent(_GOODPUT)} of peak", told, "100 %", is_met))
    recovery_s = found["recovery_s"]
    told = "never in the run" if recovery_s is None else f"{recovery_s:.2f} s"
    is_met = recovery_s is not None and recovery_s <= _RECOVERY_S
    return [*bars, Bar("back inside the SLO", f"<= {_RECOVERY_S:g} s", told, "0 s", is_met)]


def agreement(rows: Iterable[Mapping[str, Any]]) -> list[Bar]:
    """Return, by policy, how far the simulator is from the real gateway at worst; invalid runs are left out."""
    valid = [row for row in rows if row["real"]["is_valid"]]
    bars = []
    for policy in dict.fromkeys(row["policy"] for row in valid):
        mine = [row for row in valid if row["policy"] == policy]
        for figure, limit in (("attainment", POINT), ("mean_accuracy", POINT / 2)):
            both = [row for row in mine if None not in (row["real"].get(figure), row["simulated"].get(figure))]
            if not both:
                continue
            off, row = _worst(both, partial(_closeness, figure=figure))
            told = (
                f"{_points(-off)}: {_percent(row['real'][figure])} real, {_percent(row['simulated'][figure])} simulated"
            )
            asked = f"within {100 * limit:g} points"
            bars.append(Bar(f"{policy}, {figure.replace('_', ' ')}", asked, told, "", -off <= limit, _place(row)))
    return bars


def constants(rows: Iterable[Mapping[str, Any]]) -> list[Bar]:
    """Return whether the benchmark can fail: a constant in the policy's place must be worse over all runs."""
    rows = list(rows)
    means = {
        policy: _mean(row["real"]["effective_accuracy"] for row in rows if row["policy"] == policy)
        for policy in dict.fromkeys(row["policy"] for row in rows)
        if all("effective_accuracy" in row["real"] for row in rows)
    }
    if not means:
        return []
    ours = means.pop(next(iter(means)))
    what = "effective accuracy, mean of all runs"
    return [
        Bar(f"{what}: {name}", "worse than the policy", f"{_percent(value)} against {_percent(ours)}", "", value < ours)
        for name, value in means.items()
    ]


def cascades(rows: Iterable[Mapping[str, Any]]) -> list[Bar]:
    """Return, by trace and load, whether cascades gain on the real gateway: CPU time, and no accuracy lost."""
    rows = list(rows)
    bars = []
    for place in dict.fromkeys(map(_place, rows)):
        mine = {
            name: [row for row in rows if _place(row) == place and row["policy"] == name] for name in (OURS_NAME, PLAIN)
        }
        if any(row.get(figure) is None for row in rows for figure in ("effective_accuracy", "cpu_s_per_good_answer")):
            continue
        (right, cpu_s), (plain, plain_s) = (
            [_mean(row[figure] for row in mine[name]) for figure in ("effective_accuracy", "cpu_s_per_good_answer")]
            for name in (OURS_NAME, PLAIN)
        )
        told = f"{_percent(right)} against {_percent(plain)}; {1e3 * cpu_s:.3g} against {1e3 * plain_s:.3g} ms"
        is_met = right > plain - _NO_LOSS and cpu_s < plain_s
        asked = f"less CPU an on-time correct answer, at most {100 * _NO_LOSS:g} points lost"
        bars.append(Bar("cascades", asked, told, "", is_met, place))
    return bars


def predictions(found: Mapping[str, Any]) -> list[Bar]:
    """Return the bars on predicted latency."""
    error, coverage = found["error_p95"], found["coverage"]
    bars = []
    if error is not None:
        bars.append(Bar("p95 of the absolute error", f"<= {_percent(_ERROR)}", _percent(error), "", error <= _ERROR))
    told = "no p99 is claimed" if coverage is None else _percent(coverage)
    asked = f"{_percent(_COVERAGE[0])} to {_percent(_COVERAGE[1])}"
    is_met = None if coverage is None else _COVERAGE[0] <= coverage <= _COVERAGE[1]
    return [*bars, Bar("answers within the claimed p99", asked, told, "", is_met)]


def idle(p50_s: Mapping[str, float]) -> list[Bar]:
    """Return the bar on one request at a time: the gateway over the bare frontend, which includes the bare call."""
    over_s = p50_s["tiergate"] - p50_s["raw frontend"]
    told = (
        f"{over_s * 1e3:.3f} ms ({p50_s['tiergate'] * 1e3:.3f} ms; frontend alone "
        f"{p50_s['raw frontend'] * 1e3:.3f}, bare call {p50_s['bare'] * 1e3:.3f})"
    )
    asked = "<= 0.25 ms over the bare call and the frontend's floor"
    return [Bar("p50, one connection", asked, told, "", over_s <= _OVERHEAD_S)]


def gap_closed(cell: Cell) -> float | None:
    """Return the share of the gap from the best single variant to the oracle that is closed; ``None`` without a gap."""
    best = _of(cell, BEST)["expected_accuracy"]
    gap = cell["oracle"]["expected_accuracy"] - best
    return None if gap < _SMALLEST_GAP else (_ours(cell)["expected_accuracy"] - best) / gap


def _regret(cell: Cell) -> float:
    return float(cell["oracle"]["expected_accuracy"] - _ours(cell)["expected_accuracy"])


def _margin(cell: Cell, name: str) -> float:
    return float(_ours(cell)["effective_accuracy"] - _of(cell, name)["effective_accuracy"])


def _closeness(row: Cell, figure: str) -> float:
    return -abs(float(row["real"][figure]) - float(row["simulated"][figure]))


def _ours(cell: Cell) -> Mapping[str, Any]:
    return _of(cell, best_of_ours(list(cell["policies"])))


def _of(cell: Cell, name: str) -> Mapping[str, Any]:
    figures: Mapping[str, Any] = cell["policies"][name]
    return figures


def _worst(cells: Iterable[Cell], figure: Callable[[Cell], float]) -> tuple[float, Cell]:
    return min(((figure(cell), cell) for cell in cells), key=lambda pair: pair[0])


def _place(cell: Cell) -> str:
    return f"{cell['trace']}, load {cell['load']:g}"


def _mean(values: Iterable[float]) -> float:
    kept = list(values)
    return sum(kept) / len(kept)


def _percent(value: float) -> str:
    return f"{100 * value:.4g} %"


def _points(value: float) -> str:
    return f"{100 * value:.2f} points"


def _ratio(value: float) -> str:
    return "no violation" if value == math.inf else f"{value:.1f}x"
