"""The report: one HTML file with everything in it, readable on a phone, by day and by night.

It needs no other file, no network and no script. The plot comes in two widths and the page shows the one that fits;
on a narrow screen each row of the table becomes a card.
"""

from __future__ import annotations

from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING, Final

from variants.changes import changed_settings, effects
from variants.errors import MissingPart
from variants.figures import cascade_figures, cell, figures, remeasured, summary
from variants.manifest import MANIFEST_FILE
from variants.pareto import PLOT_FILE, draw_png, draw_svg

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from variants.manifest import ModelManifest, VariantManifest

REPORT_FILE: Final = "report.html"
WIDE, NARROW = (960, 480), (350, 400)
STYLE: Final = """
:root{color-scheme:light dark;--ink:#1d2328;--soft:#5b6670;--page:#fbfbfa;--card:#fff;--line:#dfe3e6;
--routable:#1f6f8b;--dominated:#7d848a;--rejected:#b3362b;--cascade:#a85d00}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9eb;--soft:#9aa5ad;--page:#15191c;--card:#1d2226;--line:#343b41;
--routable:#62b6d3;--dominated:#98a1a8;--rejected:#ef8377;--cascade:#e0a458}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1240px;margin:0 auto;padding:24px 20px 48px}
h1{font-size:1.6rem;margin:0 0 4px}h2{font-size:1.1rem;margin:32px 0 10px}
p{margin:4px 0;max-width:80ch}.soft{color:var(--soft)}
table{border-collapse:collapse;width:100%;background:var(--card);font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:7px 6px;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}
th{color:var(--soft);font-weight:600;vertical-align:bottom}
td:first-child,th:first-child,table.words td,table.words th{text-align:left}
td:first-child{font-weight:600}table.numbers td{white-space:nowrap}
.scroll{overflow-x:auto}
.routable{color:var(--routable)}.dominated{color:var(--dominated)}.rejected{color:var(--rejected)}
.cascade{color:var(--cascade)}
figure{margin:0;background:var(--card);border:1px solid var(--line);padding:8px;overflow-x:auto}
figcaption{color:var(--soft);font-size:13px}
svg{display:block;max-width:100%;height:auto;margin:0 auto;font:13px system-ui,sans-serif}
.narrow svg{display:none}
.grid{stroke:var(--line)}.tick{fill:var(--soft);font-size:12px}
.front{fill:none;stroke:var(--routable);stroke-dasharray:5 4}
g line,g circle,g polygon{stroke:currentColor}g circle,g polygon{fill:currentColor;fill-opacity:.7}
g text{fill:currentColor;font-weight:600;paint-order:stroke;stroke:var(--card);stroke-width:4px}
g line.leader{stroke-width:.7}
g.dominated circle,g.rejected circle{fill-opacity:0;stroke-width:1.5}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:0;font-size:13px}
dt{font-weight:600}dd{margin:0;color:var(--soft);overflow-wrap:anywhere}
@media(max-width:760px){
main{padding:16px 12px 32px}.wide svg{display:none}.narrow svg{display:block}
thead{display:none}table,tbody,tr,td{display:block;width:100%}
table{background:none}tr{background:var(--card);border:1px solid var(--line);margin-bottom:10px;padding:6px 10px}
td,table.words td{border:0;padding:2px 0;text-align:right;display:flex;justify-content:space-between;gap:16px}
td::before{content:attr(data-label);color:var(--soft);font-weight:400;text-align:left}
td:first-child{font-size:15px}td:first-child::before{content:none}
table.words td{text-align:left}table.numbers td{white-space:normal}dl{grid-template-columns:1fr}dd{margin-bottom:6px}}
"""


def describe_in_files(manifest: ModelManifest, before: ModelManifest | None = None) -> dict[str, bytes]:
    """Return what stands beside the variants' files, by file name; without matplotlib there is no picture.

    ``before`` is the version before, with which the report compares.
    """
    documents = {REPORT_FILE: render_html(manifest, before).encode()}
    with suppress(MissingPart):  # the report has the same picture
        documents[PLOT_FILE] = draw_png(manifest)
    return documents | {MANIFEST_FILE: manifest.model_dump_json(indent=2).encode() + b"\n"}


def render_html(manifest: ModelManifest, before: ModelManifest | None = None) -> str:
    """Return the report of a manifest as one self-contained page, with what changed since the version ``before``."""
    columns = figures(manifest)
    body = "".join(
        (
            f"<h1>{escape(manifest.model)}</h1><p class='soft'>{escape(summary(manifest))}</p>",
            "<h2>Latency against accuracy</h2>",
            _plot(manifest),
            "<h2>Variants</h2>",
            _table([c.heading for c in columns], _figure_rows(manifest), "numbers", [c.meaning for c in columns]),
            *_cascades(manifest),
            *_since(before, manifest),
            "<h2>Routing and gates</h2>",
            _table(["variant", "routing", "reason", "gates"], _routing_rows(manifest.variants), "words"),
            "<h2>Latency by batch size</h2><p class='soft'>p50 compute time of a whole batch, one thread</p>",
            _batch_table(manifest),
            "<h2>Fidelity</h2>",
            _table(*_fidelity(manifest.variants), "numbers"),
            *_meanings(manifest),
            "<h2>Where this comes from</h2>",
            _list(_origin(manifest)),
        )
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(manifest.model)}: variants</title><style>{STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def _cascades(manifest: ModelManifest) -> Iterator[str]:
    if manifest.cascades:
        columns = cascade_figures(manifest)
        rows = [list(row) for row in zip(*(column.texts for column in columns), strict=True)]
        yield "<h2>Cascades</h2><p class='soft'>One variant answers; where it is unsure, a bigger one is asked. Only "
        yield "pairs that are more accurate than any mixture of single variants of the same cost are kept.</p>"
        yield _table([c.heading for c in columns], rows, "numbers", [c.meaning for c in columns])


def _since(before: ModelManifest | None, manifest: ModelManifest) -> Iterator[str]:
    """Tell what other settings did to every variant since the version before, unless it is the same build again."""
    if before is None or before.build_key == manifest.build_key:
        return
    yield f"<h2>Since version {escape(before.version)}</h2><p class='soft'>What differs, and every variant then and "
    yield "now. Where the seed or the test rows are others, accuracies are of other rows.</p>"
    if settings := changed_settings(before, manifest):
        yield _table(["setting", "before", "now"], [list(item) for item in settings], "words")
    else:
        yield "<p>No setting: the recipe's code, tiergate, its tools or the processor are others.</p>"
    headings = ["variant", "file before", "now", "p50 before", "now", f"{manifest.metric} before", "now"]
    rows = [[item.variant, *item.size, *item.time, *item.accuracy] for item in effects(before, manifest)]
    yield _table(headings, rows, "numbers")


def _meanings(manifest: ModelManifest) -> Iterator[str]:
    yield "<h2>What the columns mean</h2>"
    yield _list((c.heading, c.meaning) for c in figures(manifest))
    if manifest.cascades:
        yield "<h2>What the columns of cascades mean</h2>"
        yield _list((c.heading, c.meaning) for c in cascade_figures(manifest))


def _plot(manifest: ModelManifest) -> str:
    caption = (
        "A bubble's area is the file's size, its whisker the 95 % interval of accuracy. "
        "Filled: routable; hollow: kept out of routing. Dashed: the Pareto front of single variants."
        + (" Diamonds: cascades, at their expected time." if manifest.cascades else "")
    )
    wide, narrow = draw_svg(manifest, *WIDE), draw_svg(manifest, *NARROW)
    return (
        f'<figure><div class="wide">{wide}</div><div class="narrow">{narrow}</div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _figure_rows(manifest: ModelManifest) -> Iterator[list[str]]:
    columns = figures(manifest)
    for number in range(len(manifest.variants)):
        yield [column.texts[number] for column in columns]


def _routing_rows(variants: Sequence[VariantManifest]) -> Iterator[list[str]]:
    for variant in variants:
        gates = "; ".join(f"{g.name} {'passed' if g.passed else 'MISSED'}: {g.detail}" for g in variant.routing.gates)
        yield [variant.name, variant.routing.state, variant.routing.reason, gates]


def _batch_table(manifest: ModelManifest) -> str:
    sizes = sorted({row.batch_size for row in manifest.variants[0].latency.rows})
    rows = [[v.name, *(f"{cell(v, size).p50_s * 1e3:.3f} ms" for size in sizes)] for v in manifest.variants]
    return _table(["variant", *(f"batch {size}" for size in sizes)], rows, "numbers")


def _fidelity(variants: Sequence[VariantManifest]) -> tuple[list[str], list[list[str]]]:
    headings = [
        "variant",
        "flips",
        "McNemar p",
        "KL to full",
        "KL to parent",
        "calibration error",
        "parity: max error",
        "agreement",
        "made from",
        "ISA executed",
        "ISA proven",
    ]
    rows = []
    for variant in variants:
        accuracy, parity = variant.accuracy, variant.parity
        error = "-" if parity is None else f"{parity.max_error:.1e}"
        agreement = "-" if parity is None else f"{parity.argmax_agreement * 100:.2f} %"
        rows.append([
            variant.name, str(accuracy.flips), f"{accuracy.mcnemar_p:.3f}", _optional(accuracy.kl_to_full, ".2e"),
            _optional(accuracy.kl_to_parent, ".2e"), _optional(accuracy.calibration_error, ".2%"), error, agreement,
            variant.parent or "-", ", ".join(variant.hardware.verified_isa) or "-",
            ", ".join(variant.hardware.proven_isa) or "-",
        ])  # fmt: skip
    return headings, rows


def _optional(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _origin(manifest: ModelManifest) -> Iterator[tuple[str, str]]:
    yield "recipe", f"{manifest.recipe}, seed {manifest.seed}, build key {manifest.build_key}"
    yield "data", "; ".join(f"{name}: {part.rows} rows, {part.sha256[:12]}" for name, part in manifest.splits.items())
    yield "machine", f"{manifest.machine.cpu}, {manifest.machine.cores} cores, {', '.join(manifest.machine.isa)}"
    if manifest.measured is not None:
        yield "measured again", remeasured(manifest)
    yield "tools", ", ".join(f"{name} {version}" for name, version in manifest.tools.items())
    yield "files", "; ".join(f"{v.file} {v.sha256[:12]}" for v in manifest.variants if v.is_published)


def _table(
    headings: Sequence[str], rows: Iterator[list[str]] | list[list[str]], kind: str, hints: Sequence[str] = ()
) -> str:
    titles = hints or headings
    head = "".join(
        f'<th title="{escape(hint)}">{escape(text)}</th>' for text, hint in zip(headings, titles, strict=True)
    )
    body = "".join(f"<tr>{''.join(map(_cell, row, headings))}</tr>" for row in rows)
    table = f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _cell(text: str, heading: str) -> str:
    mark = f' class="{text}"' if heading == "routing" else ""
    return f'<td data-label="{escape(heading)}"{mark}><span>{escape(text)}</span></td>'


def _list(pairs: Iterator[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in pairs) + "</dl>"
