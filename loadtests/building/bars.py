"""The bars: what is asked of the build step, what was measured of it, and the verdict.

Sizes, accuracies and multiply-accumulates are the manifests'; times are of this bench, side by side. A difference of
accuracy is of the same rows: the build's test rows, or the fresh ones where there are some. Its
interval is Tango's, two-sided at 90 %, so that each verdict is one-sided at 95 % (``variants.intervals``).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from loadtests.building.ordering import compare_orders
from loadtests.building.subjects import DOWNLOADS
from loadtests.building.timing import headline, ratio
from variants.intervals import judge

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from loadtests.building.timing import Ratio
    from variants.evidence import NonInferiority

    Parts = Mapping[str, Any]
    Facts = Mapping[str, Any]

POINT: Final = 0.01
COMPACT: Final = (10.0, 6.0)
TEXT: Final = (8.0, 0.99)
PRUNED: Final = (4.0, 0.2 * POINT, 0.75)
INT8: Final = (0.99, 0.6, 0.999, 2.3)
SATURATED: Final = 0.5 * POINT
DOWNLOAD: Final = (35.0, 0.5 * POINT)
HONEST: Final = 0.95
SMALLEST: Final = (2 * POINT, 8 * POINT)


@dataclass(frozen=True, slots=True)
class Bar:
    """One row; ``is_met`` is ``None`` where it was not measured; ``parts`` are those whose figures it is made of."""

    what: str
    asked: str
    measured: str
    is_met: bool | None
    parts: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The verdict as a word."""
        return "not measured" if self.is_met is None else "met" if self.is_met else "NOT met"


def all_bars(parts: Parts) -> list[Bar]:
    """Return every bar; one whose part was not run says so."""
    return [
        *compact(parts),
        text(parts),
        *pruned(parts),
        *int8(parts),
        saturated(parts),
        download(parts),
        honest(parts),
        steep(parts),
    ]


def compact(parts: Parts) -> Iterator[Bar]:
    """Images, made small by what precedes int8: pruning with the teacher's answers, or a student of its own."""
    asked = f">= {COMPACT[0]:g}x smaller file, >= {COMPACT[1]:g}x lower p50, non-inferior within 1 point"
    names = ("pruned-quantized", "distilled-quantized")
    for name in names:
        what, facts, cells = f"images, {name}", _facts(parts, "images"), timed_cells(parts, "images")
        if facts is None or cells is None or name not in facts["variants"]:
            yield Bar(what, asked, "", None, ("build", "latency"))
            continue
        smaller = facts["variants"]["full"]["file_bytes"] / facts["variants"][name]["file_bytes"]
        faster, loss = ratio(headline(cells), "full", name), _difference(parts, "images", name, POINT)
        is_met = smaller >= COMPACT[0] and faster.value >= COMPACT[1] and loss.verdict == "pass"
        told = f"{smaller:.1f}x smaller, {_times(faster)} lower p50, {_points(loss)}: {loss.verdict}"
        yield Bar(what, asked, told, is_met, ("build", "accuracy", "latency"))


def text(parts: Parts) -> Bar:
    """Text: the fastest small int8 network that keeps enough of the teacher's metric, else the most accurate."""
    asked = f">= {TEXT[0]:g}x lower p50 at >= {100 * TEXT[1]:g} % of full"
    facts, cells = _facts(parts, "text"), timed_cells(parts, "text")
    if facts is None or cells is None:
        return Bar("text, pruned or distilled, int8", asked, "", None, ("build", "latency"))
    small = [name for name, one in facts["variants"].items() if one["tier"] not in {"full", "quantized"}]
    kept = {name: _kept(facts, name, "full") for name in small if name in headline(cells)["blocks_s"]}
    enough = [name for name, share in kept.items() if share >= TEXT[1]]
    faster = {name: ratio(headline(cells), "full", name) for name in kept}
    best = max(enough, key=lambda name: faster[name].value) if enough else max(kept, key=kept.__getitem__)
    is_met = kept[best] >= TEXT[1] and faster[best].value >= TEXT[0]
    told = f"{_times(faster[best])} lower p50 at {100 * kept[best]:.2f} %"
    return Bar(f"text, {best}", asked, told, is_met, ("build", "latency"))


def pruned(parts: Parts) -> Iterator[Bar]:
    """Pruning alone, of every model that has it."""
    asked = f">= {PRUNED[0]:g}x fewer MACs at <= 0.2 point, speed-up >= {PRUNED[2]:g} x the ratio of MACs"
    for model, facts in parts.get("build", {}).items():
        cells = timed_cells(parts, model)
        if "pruned" not in facts["variants"] or cells is None:
            continue
        full, small = facts["variants"]["full"], facts["variants"]["pruned"]
        if not small["macs"]:
            continue
        fewer, faster = full["macs"] / small["macs"], ratio(headline(cells), "full", "pruned")
        loss = _difference(parts, model, "pruned", PRUNED[1])
        is_met = fewer >= PRUNED[0] and loss.verdict == "pass" and faster.value >= PRUNED[2] * fewer
        told = (
            f"{fewer:.2f}x fewer, {_points(loss)}: {_within(loss)}, {_times(faster)} lower p50, "
            f"{faster.value / fewer:.2f} x that"
        )
        yield Bar(f"pruning alone, {model}", asked, told, is_met, ("build", "accuracy", "latency"))


def int8(parts: Parts) -> Iterator[Bar]:
    """Int8 against the float file that it was made from: the fastest form of each full model, and every form."""
    asked = (
        f"all >= {100 * INT8[0]:g} % of float, {100 * INT8[1]:g} % of them >= {100 * INT8[2]:g} %, median speed-up "
        f">= {INT8[3]:g}x"
    )
    pairs = int8_pairs(parts)
    best = {pair.model: pair for pair in sorted(pairs, key=lambda pair: pair.faster.value) if pair.parent == "full"}
    yield _int8("int8 with fallback, full models", asked, list(best.values()))
    yield _int8("int8 with fallback, every float file", asked, pairs)


@dataclass(frozen=True, slots=True)
class Pair:
    """An int8 variant, static or dynamic, the share of its parent's accuracy that it keeps, and its speed-up."""

    model: str
    name: str
    parent: str
    kept: float
    faster: Ratio


def int8_pairs(parts: Parts) -> list[Pair]:
    """Return every pair that was timed."""
    found = []
    for model, facts in parts.get("build", {}).items():
        cells = timed_cells(parts, model)
        if cells is None:
            continue
        for name, one in facts["variants"].items():
            if one["is_int8"] and name in headline(cells)["blocks_s"]:
                parent = one["parent"]
                faster = ratio(headline(cells), parent, name)
                found.append(Pair(model, name, parent, _kept(facts, name, parent), faster))
    return found


def saturated(parts: Parts) -> Bar:
    """The greatest loss of what is declared safe where pairs of products saturate."""
    what, asked = "int8 where it is declared safe", "<= 0.5 point lost where pairs of products saturate"
    found = {
        f"{model}/{name}": figures["loss"]
        for model in parts.get("build", {})
        for name, figures in (_of(parts, "saturation", model) or {}).items()
    }
    if not found:
        return Bar(what, asked, "", None, ("saturation",))
    worst = max(found, key=found.__getitem__)
    told = f"at most {100 * found[worst]:.2f} points ({worst}), of {len(found)} variants"
    return Bar(what, asked, told, found[worst] <= SATURATED, ("saturation",))


def download(parts: Parts) -> Bar:
    """The packed form of full, through a whole build."""
    asked = f">= {DOWNLOAD[0]:g}x smaller at <= 0.5 point"
    facts = _facts(parts, "digits-download")
    packed = [] if facts is None else [name for name, one in facts["variants"].items() if one["is_packed"]]
    if facts is None or not packed:
        return Bar("download tier, digits", asked, "", None, ("build",))
    smaller = facts["variants"]["full"]["file_bytes"] / facts["variants"][packed[0]]["file_bytes"]
    loss = _difference(parts, "digits-download", packed[0], DOWNLOAD[1])
    is_met = smaller >= DOWNLOAD[0] and loss.verdict == "pass"
    return Bar(
        "download tier, digits", asked, f"{smaller:.1f}x smaller, {_points(loss)}: {_within(loss)}", is_met, ("build",)
    )


def honest(parts: Parts) -> Bar:
    """The order of variants that the manifests' latencies give, against the one measured."""
    asked = f">= {100 * HONEST:g} % of (batch, threads) cells in the manifests' order"
    models = {model: cells for model in parts.get("build", {}) if (cells := timed_cells(parts, model)) is not None}
    found = compare_orders(models)
    if not found.cells:
        return Bar("manifest honesty", asked, "", None, ("latency",))
    share = found.agreeing / found.cells
    told = (
        f"{100 * share:.1f} % of {found.cells} cells but for ties; {100 * found.exact / found.cells:.1f} % in exactly "
        "that order"
    )
    return Bar("manifest honesty", asked, told, share >= HONEST, ("latency",))


def steep(parts: Parts) -> Bar:
    """How far the smallest routable variant of images lies below full."""
    what, asked = "images: the smallest useful variant", "2 to 8 points below full"
    facts = _facts(parts, "images")
    if facts is None:
        return Bar(what, asked, "", None, ("build",))
    useful = {name: one for name, one in facts["variants"].items() if one["state"] == "routable"}
    smallest = min(useful, key=lambda name: useful[name]["file_bytes"])
    loss = _difference(parts, "images", smallest, POINT)
    is_met = SMALLEST[0] <= -loss.difference <= SMALLEST[1]
    return Bar(what, asked, f"{smallest}: {_points(loss)}", is_met, ("build", "accuracy"))


def _int8(what: str, asked: str, pairs: list[Pair]) -> Bar:
    if not pairs:
        return Bar(what, asked, "", None, ("build", "latency"))
    least, speed = min(pair.kept for pair in pairs), median(pair.faster.value for pair in pairs)
    near = sum(pair.kept >= INT8[2] for pair in pairs) / len(pairs)
    told = (
        f"{len(pairs)} files: least {100 * least:.2f} %, {100 * near:.0f} % of them >= {100 * INT8[2]:g} %, median "
        f"{speed:.2f}x"
    )
    return Bar(what, asked, told, least >= INT8[0] and near >= INT8[1] and speed >= INT8[3], ("build", "latency"))


def _facts(parts: Parts, model: str) -> Facts | None:
    facts: Facts | None = parts.get("build", {}).get(model)
    return facts


def _of(parts: Parts, part: str, model: str) -> Any:  # noqa: ANN401 - each part has its own form
    """Return what a part found of a model, unless the model was built anew since."""
    found = parts.get(part, {}).get(model)
    return found["found"] if found and found["build_key"] == parts["build"][model]["build_key"] else None


def timed_cells(parts: Parts, model: str) -> list[dict[str, Any]] | None:
    """Return what was timed of a model, ``None`` where nothing was; models for the download tier are none to time."""
    is_there = model in parts.get("build", {}) and model not in DOWNLOADS
    cells: list[dict[str, Any]] | None = _of(parts, "latency", model) if is_there else None
    return cells


def _kept(facts: Facts, name: str, other: str) -> float:
    return float(facts["variants"][name]["accuracy"] / facts["variants"][other]["accuracy"])


def _difference(parts: Parts, model: str, name: str, margin: float) -> NonInferiority:
    """Return the paired difference to full on the most rows that there are."""
    fresh = _of(parts, "accuracy", model)
    if fresh and name in fresh["variants"]:
        one = fresh["variants"][name]
        return judge(one["lost"], one["gained"], fresh["rows"], margin)
    facts = parts["build"][model]
    one = facts["variants"][name]
    return judge(one["lost"], one["gained"], facts["rows"], margin)


def _within(loss: NonInferiority) -> str:
    return {"pass": "proven", "fail": "more than that", "inconclusive": "not proven by so few rows"}[loss.verdict]


def _times(found: Ratio) -> str:
    return f"{found.value:.2f}x ({found.low:.2f}-{found.high:.2f})"


def _points(loss: NonInferiority) -> str:
    return f"{100 * loss.difference:+.2f} points ({100 * loss.low:+.2f} to {100 * loss.high:+.2f})"
