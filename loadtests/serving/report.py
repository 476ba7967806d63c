"""The results as text: one table a bar, one of all policies a trace, and where the figures come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from loadtests.marked_page import Marks, image, table
from loadtests.serving.bars import all_bars, gap_closed
from loadtests.serving.contenders import best_of_ours

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from loadtests.serving.pictures import Picture

MARKS: Final = Marks("bench-serving")


def rewrite(page: Path, parts: Mapping[str, Any], pictures: Sequence[Picture]) -> None:
    """Put the results and pictures between the marks of a page.

    Raises:
        MarksMissing: The page has no place for them.
    """
    shown = [image(page, picture.path, picture.words) for picture in pictures]
    MARKS.rewrite(page, [*shown, text(parts), ""])


def text(parts: Mapping[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [*_sources(parts), ""]
    for title, bars in all_bars(parts).items():
        if not bars:
            continue
        rows = [[bar.what, bar.asked, bar.measured, bar.oracle, bar.where, bar.verdict] for bar in bars]
        header = ("figure", "asked", "measured", "oracle", "worst at", "bar")
        lines += [f"**{title}**", "", *table(header, rows, left=len(header)), ""]
    if "simulated" in parts:
        lines += _comparison(parts["simulated"], "All policies, simulated")
    if "hindsight" in parts:
        lines += _comparison(parts["hindsight"], "The same where a run always takes its median time")
    if "real" in parts:
        lines += _real(parts["real"])
    if "cascades" in parts:
        lines += _cascades(parts["cascades"])
    if "calibrate" in parts:
        lines += _calibrated(parts["calibrate"])
    return "\n".join(lines).rstrip()


def _sources(parts: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, part in parts.items():
        machine = part["machine"]
        lines.append(
            f"- {name}: `{part['command']}`, commit {part['commit']}, {part['date']}, {machine['cpu']}, "
            f"{machine['cores']} cores, {part['took_s']:.0f} s"
        )
    return lines


def _comparison(part: Mapping[str, Any], title: str) -> list[str]:
    """Return, by trace and load, every policy's attainment and effective accuracy, and what the oracle bounds."""
    calibrated = "calibrated" if part["is_calibrated"] else "not calibrated: without the event loop's time"
    answers = "real labelled rows" if part["has_answers"] else "drawn answers"
    about = (
        f"{title}: {part['lanes']} lanes, budget {part['budget_s'] * 1e3:.3g} ms, first "
        f"{part['requests']:,} requests of each trace, {answers}, machine {calibrated}. Attainment % / effective "
        "accuracy % / CPU-ms per on-time correct answer."
    )
    lines = [about, ""]
    for trace in dict.fromkeys(cell["trace"] for cell in part["cells"]):
        cells = [cell for cell in part["cells"] if cell["trace"] == trace]
        names = list(dict.fromkeys(name for cell in cells for name in cell["policies"]))
        rows = [[name, *(_figures(cell["policies"].get(name)) for cell in cells)] for name in names]
        rows.append(["oracle, answers unknown", *(_bound(cell) for cell in cells)])
        known = [f"- / {100 * cell['oracle']['effective_accuracy']:.2f} / -" for cell in cells]
        rows.append(["oracle, answers known", *known])
        ours = best_of_ours(names)
        rows.append([f"gap closed by {ours}, %", *(_closed(cell) for cell in cells)])
        header = (trace, *(f"load {cell['load']:g}" for cell in cells))
        lines += [*table(header, rows, left=1), ""]
    return lines


def _figures(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return ""
    shares = f"{100 * figures['attainment']:.2f} / {100 * figures['effective_accuracy']:.2f}"
    return f"{shares} / {1e3 * figures['cpu_s_per_good_answer']:.3g}"


def _bound(cell: Mapping[str, Any]) -> str:
    oracle = cell["oracle"]
    return (
        f"{100 * oracle['attainment']:.2f} / {100 * oracle['expected_accuracy']:.2f} / {1e3 * cell['least_cpu_s']:.3g}"
    )


def _closed(cell: Mapping[str, Any]) -> str:
    closed = gap_closed(cell)
    return "no gap" if closed is None else f"{100 * closed:.1f}"


def _real(part: Mapping[str, Any]) -> list[str]:
    header = ("trace", "load", "policy", "attainment %", "simulated", "mean accuracy %", "simulated", "eff. acc. %",
              "p50 / p99 ms", "run")  # fmt: skip
    rows = []
    for row in part["rows"]:
        real, simulated = row["real"], row["simulated"]
        rows.append(
            [
                row["trace"],
                f"{row['load']:g}",
                row["policy"],
                _attained(real),
                _share(simulated["attainment"]),
                _share(real.get("mean_accuracy")),
                _share(simulated.get("mean_accuracy")),
                _share(real.get("effective_accuracy")),
                f"{_ms(real['latency_p50_s'])} / {_ms(real['latency_p99_s'])}",
                "valid" if real["is_valid"] else f"invalid: {real['faults'][0]}",
            ]
        )
    among = ", ".join(part["variants"]) if part.get("variants") else "all variants"
    about = (
        f"Real gateway, one lane, {among}, budget {part['budget_s'] * 1e3:.3g} ms; load 1 is {part['full_hz']:,.0f} "
        "requests/s. Of several runs that of the median attainment, with the least and the most of all."
    )
    return [about, "", *table(header, rows, left=3), ""]


def _attained(real: Mapping[str, Any]) -> str:
    """Return the attainment of a run, with the least and the most of all runs where there were several."""
    found, every = _share(real["attainment"]), real.get("attainments", ())
    return f"{found} ({_share(min(every))}-{_share(max(every))})" if len(every) > 1 else found


def _cascades(part: Mapping[str, Any]) -> list[str]:
    header = ("trace", "load", "policy", "attainment %", "eff. acc. %", "CPU-ms a good answer", "p50 / p99 ms", "run")
    rows = [
        [
            row["trace"],
            f"{row['load']:g}",
            row["policy"],
            _share(row["attainment"]),
            _share(row.get("effective_accuracy")),
            _ms(row["cpu_s_per_good_answer"]),
            f"{_ms(row['latency_p50_s'])} / {_ms(row['latency_p99_s'])}",
            "valid" if row["is_valid"] else f"invalid: {row['faults'][0]}",
        ]
        for row in part["rows"]
    ]
    about = (
        f"Real gateway with and without cascades, all variants, one lane, budget {part['budget_s'] * 1e3:.3g} ms; load "
        f"1 is {part['full_hz']:,.0f} requests/s; CPU of the whole process."
    )
    return [about, "", *table(header, rows, left=3), ""]


def _calibrated(part: Mapping[str, Any]) -> list[str]:
    machine = part["simulated_machine"]
    loop = machine["loop"]
    loop_us = 1e6 * (loop["read_s"] + loop["reply_s"])
    told = (
        f"The simulator's machine, as calibrated: {loop_us:.0f} us of event loop a request, "
        f"{1e6 * machine['per_run_s']:.0f} us of lane around a run, {1e6 * loop['before_s']:.0f} us to wake an idle "
        f"lane, {1e6 * machine['after_s']:.0f} us outside the gateway."
    )
    return [told, ""]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{1e3 * value:.3g}"
