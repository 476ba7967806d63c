"""The report of a load test: one HTML file with everything in it, readable on a phone, by day and by night.

It needs no other file, no network and no script. Every plot comes in two widths and the page shows the one that fits.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from loadtests import plots
from loadtests.svg import SERIES
from loadtests.wording import NONE, count, duration, percent, share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from loadtests.document import Document
    from loadtests.figures import Group, Summary

    Draw = Callable[[Document, int, int], str]

_WIDE, _NARROW = (1160, 320), (342, 260)
_DAY: Final = ("#1f6f8b", "#c8552b", "#3d8a4e", "#8a5aa8", "#b08900", "#c04a7f", "#4d6fc4", "#7a7f85")
_NIGHT: Final = ("#62b6d3", "#f2936b", "#7cc98c", "#c49be0", "#e0bf4a", "#ee8fb8", "#92adf2", "#a8aeb4")
_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1d2328;--soft:#59646e;--page:#fbfbfa;--card:#fff;--line:#dfe3e6;--bad:#b3362b;
--good:#2c7a43;DAY}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9eb;--soft:#9aa5ad;--page:#15191c;--card:#1d2226;--line:#343b41;
--bad:#ef8377;--good:#7cc98c;NIGHT}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1240px;margin:0 auto;padding:24px 20px 48px}
h1{font-size:1.6rem;margin:0 0 4px}h2{font-size:1.1rem;margin:32px 0 8px}
p{margin:4px 0;max-width:85ch}.soft{color:var(--soft)}.bad{color:var(--bad)}.good{color:var(--good)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin:16px 0 0}
.tile{background:var(--card);border:1px solid var(--line);padding:10px 12px}
.tile b{display:block;font-size:1.25rem;font-variant-numeric:tabular-nums}.tile span{color:var(--soft);font-size:13px}
table{border-collapse:collapse;width:100%;background:var(--card);font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:6px 8px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th{color:var(--soft);font-weight:600;vertical-align:bottom;white-space:normal}
td:first-child,th:first-child{text-align:left}td:first-child{font-weight:600}
figure{margin:0;background:var(--card);border:1px solid var(--line);padding:8px}
figcaption{color:var(--soft);font-size:13px;padding:2px 6px 6px}
.key{display:flex;flex-wrap:wrap;gap:4px 16px;padding:4px 6px 0;font-size:13px}
.key i{display:inline-block;width:12px;height:12px;margin-right:6px;vertical-align:-1px}
svg{display:block;max-width:100%;height:auto;margin:0 auto;font:13px system-ui,sans-serif}
.narrow{display:none}
.grid{stroke:var(--line)}.tick{fill:var(--soft);font-size:12px}
polyline{fill:none;stroke-width:2}polygon{stroke:none;fill-opacity:.85}
.dashed{stroke-dasharray:5 4;stroke-width:1.5}.even{stroke:var(--soft);stroke-dasharray:3 4}.hollow{fill-opacity:0}
SERIES
@media(max-width:760px){
main{padding:16px 12px 32px}.wide{display:none}.narrow{display:block}
.tiles{grid-template-columns:1fr 1fr}
thead{display:none}table,tbody,tr,td{display:block;width:100%}
table{background:none}tr{background:var(--card);border:1px solid var(--line);margin-bottom:10px;padding:6px 10px}
td{border:0;padding:2px 0;display:flex;justify-content:space-between;gap:16px;white-space:normal}
td::before{content:attr(data-label);color:var(--soft);font-weight:400;text-align:left}
td:first-child{font-size:15px}td:first-child::before{content:none}}
"""


def render_page(document: Document) -> str:
    """Return the report of a run as one self-contained page."""
    summary = document.summary
    name = escape(str(document.scenario["name"]))
    body = "".join(
        (
            f"<h1>Load test: {name}</h1><p class='soft'>{escape(_subtitle(document))}</p>",
            _verdict(summary),
            _tiles(summary),
            "<h2>Who asked, and who answered</h2>",
            _table(summary),
            _figure(
                document,
                "Latency",
                plots.latency,
                [item.name for item in summary.classes],
                "Share of the offered requests that were answered within a time, counted from the scheduled moment. "
                "Dashed: the kind's budget. Where a curve ends below 100 %, the rest got no answer.",
            ),
            _figure(
                document,
                "Timeline",
                plots.timeline,
                ["offered", "on time", "refused", "failed"],
                "Requests per second by the moment at which they were scheduled.",
            ),
            _figure(
                document,
                "Variants over time",
                plots.shares,
                [item.name for item in summary.variants],
                "Share of the answers that each variant gave.",
            ),
            _optional(document),
            "<h2>How it was run</h2>",
            _list(_conditions(document)),
        )
    )
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>Load test: {name}</title><style>{_style()}</style></head><body><main>{body}</main></body></html>\n"
    )


def _optional(document: Document) -> str:
    """Return the figures that not every run has."""
    summary, parts = document.summary, []
    if summary.all.correct is not None:
        caption = "Filled: share of right answers with its 95 % interval; hollow: what the manifest promises."
        parts.append(_figure(document, "Accuracy", plots.accuracy, [item.name for item in summary.variants], caption))
    if summary.reliability is not None:
        caption = (
            f"From the choice of the run to the answer, in tenths of the answers by prediction. "
            f"{percent(summary.reliability.kept_ratio)} of the answers took no longer than predicted."
        )
        parts.append(
            _figure(document, "Reliability of predictions", plots.reliability, ["real, p50", "real, p95"], caption)
        )
    if summary.lanes is not None:
        each = ", ".join(f"lane {lane} {percent(busy)}" for lane, busy in enumerate(summary.lanes.mean))
        parts.append(_figure(document, "Lane use", plots.lanes, ["busy, all lanes"], f"Over the whole run: {each}."))
    return "".join(parts)


def _subtitle(document: Document) -> str:
    scenario, summary = document.scenario, document.summary
    return (
        f"{scenario['description']} {count(summary.all.offered)} requests for model {scenario['model']} over "
        f"{scenario['protocol']} in {summary.duration_s:.0f} s, {document.date}."
    ).strip()


def _verdict(summary: Summary) -> str:
    lag = f"schedule lag p50 {duration(summary.lag_p50_s)}, p99 {duration(summary.lag_p99_s)}"
    lag += "; interrupted before its end" if summary.is_interrupted else ""
    if summary.is_valid:
        return f"<p><b class='good'>Valid</b>: {lag}.</p>"
    return f"<p><b class='bad'>Invalid</b>: {escape('; '.join(summary.faults))}. Do not use its figures. ({lag})</p>"


def _tiles(summary: Summary) -> str:
    whole = summary.all
    p99 = next((duration(item.value) for item in whole.latency if item.percent == 99.0), NONE)  # noqa: PLR2004
    unanswered = whole.offered - whole.answered
    tiles = [
        ("SLO attainment", share(whole.attainment)),
        ("effective accuracy", share(whole.effective_accuracy)),
        ("right of answers", share(whole.accuracy_of_answers)),
        ("p99 latency", p99),
        ("goodput", f"{summary.goodput_hz:,.0f} /s"),
        ("not answered", count(unanswered)),
        ("gateway CPU per good answer", duration(summary.cpu_s_per_on_time_correct)),
    ]
    return "".join(
        ("<div class='tiles'>", *(f"<div class='tile'><b>{v}</b><span>{k}</span></div>" for k, v in tiles), "</div>")
    )


def _table(summary: Summary) -> str:
    names: tuple[str, ...] = (
        "",
        "offered",
        "answered",
        "on time",
        "correct and on time",
        "right of answers",
        "promised",
    )
    names += tuple(f"p{item.percent:g}" for item in summary.all.latency)
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td data-label='{escape(name)}'>{escape(cell)}</td>"
            for name, cell in zip(names, _cells(group), strict=False)
        )
        + "</tr>"
        for group in (summary.all, *summary.classes, *summary.variants)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _cells(group: Group) -> tuple[str, ...]:
    budget = "" if group.budget_s is None else f", budget {duration(group.budget_s)}"
    return (
        f"{group.name}{budget}",
        count(group.offered),
        count(group.answered),
        share(group.attainment),
        share(group.effective_accuracy),
        share(group.accuracy_of_answers),
        percent(group.mean_expected_accuracy),
        *(duration(item.value) for item in group.latency),
    )


def _figure(document: Document, title: str, draw: Draw, names: Sequence[str], caption: str) -> str:
    key = "".join(
        f"<span><i style='background:var(--s{place % SERIES})'></i>{escape(name)}</span>"
        for place, name in enumerate(names)
    )
    wide, narrow = draw(document, *_WIDE), draw(document, *_NARROW)
    return (
        f"<h2>{escape(title)}</h2><figure><div class='wide'>{wide}</div><div class='narrow'>{narrow}</div>"
        f"<div class='key'>{key}</div><figcaption>{escape(caption)}</figcaption></figure>"
    )


def _conditions(document: Document) -> list[tuple[str, str]]:
    summary, scenario, machine = document.summary, document.scenario, document.machine
    server = ", ".join(f"{name} {count(number)}" for name, number in summary.server_counts.items()) or "not offered"
    client = ", ".join(f"{name} {count(number)}" for name, number in summary.client_counts.items())
    capacity = NONE if document.capacity_hz is None else f"{document.capacity_hz:,.0f}/s on {document.lanes} lanes"
    return [
        ("machine", f"{machine.get('cpu')}, {machine.get('cores')} cores, {machine.get('system')}"),
        ("rate asked for", f"{document.rate_hz:,.1f}/s; capacity by the profile {capacity}"),
        ("arrivals", ", ".join(f"{name} {value}" for name, value in scenario["arrivals"].items() if value is not None)),
        ("inputs", document.inputs),
        ("seed", str(scenario["seed"])),
        ("counted by the client", f"{client} (warm-up included)"),
        ("counted by the server", server),
        ("generator", f"{summary.generator_cpu_s:.2f} s of CPU, {summary.connections} connections"),
        ("reasons", ", ".join(f"{name} {count(number)}" for name, number in summary.reasons.items()) or NONE),
    ]


def _list(pairs: Iterable[tuple[str, str]]) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td style='text-align:left;white-space:normal'>{escape(text)}</td></tr>"
        for name, text in pairs
    )
    return f"<table><tbody>{rows}</tbody></table>"


def _style() -> str:
    day = "".join(f"--s{place}:{colour};" for place, colour in enumerate(_DAY))
    night = "".join(f"--s{place}:{colour};" for place, colour in enumerate(_NIGHT))
    series = "".join(
        f"polyline.s{p},line.s{p},circle.s{p}{{stroke:var(--s{p})}}polygon.s{p},circle.s{p}{{fill:var(--s{p})}}"
        for p in range(SERIES)
    )
    return _STYLE.replace("DAY", day).replace("NIGHT", night).replace("SERIES", series)
