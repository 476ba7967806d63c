"""The drift bench's results as Markdown, put between two comment marks of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from loadtests.drift.comparing import WINDOW
from loadtests.drift.estimating import BANDS, METHODS, MILD
from loadtests.drift.witnessing import MOST
from loadtests.marked_page import Marks, image, table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MARKS: Final = Marks("bench-drift")
ALL: Final = "all"
_WORDS: Final = "How soon detectors find a drop of five points, and estimates of accuracy beside the truth"


def shorten(document: dict[str, Any]) -> None:
    """Take out what only the picture needs."""
    document["estimates"].pop("cases")
    for found in document["detection"]["detectors"].values():
        found.pop("delays")


def rewrite(page: Path, document: Mapping[str, Any], picture: Path | None) -> None:
    """Put the results on the page.

    Raises:
        MarksMissing: The page has no place for them.
    """
    shown = [image(page, picture, _WORDS)] if picture is not None else []
    figures = (_bars, _detectors, _replay, _witnesses, _estimates, _inputs)
    parts = [_head(document), *shown, *(figure(document) for figure in figures)]
    MARKS.rewrite(page, parts)


def _head(document: Mapping[str, Any]) -> str:
    machine = document["machine"]
    rows = ", ".join(f"{name} ({count} rows)" for name, count in document["models"].items())
    return (
        f"`{document['command']}`, commit {document['commit']}, {document['date']}, {machine['cpu']}, "
        f"{machine['cores']} cores; models: {rows}."
    )


def _bars(document: Mapping[str, Any]) -> str:
    """Return what the project asks of drift, and what was measured, by model and over all."""
    estimates, detection = document["estimates"], document["detection"]
    ours, replay = detection["detectors"]["tiergate"], detection["clean replay"]
    mild = {**estimates["by model"], ALL: estimates["by band"][MILD]}
    found = {
        "median shadow samples until a drop of five points is found: at most 150": {
            name: f"{value:.0f}"
            for name, value in {**ours["median_by_model"], ALL: ours["median_delay_samples"]}.items()
        },
        "false alarms (demotions) in 100,000 clean requests: at most 1": {
            name: f"{item['demotions_per_100k_requests']:.2f}"
            for name, item in {**replay["by model"], ALL: replay}.items()
        },
        "kinds of shift and damage, up to 20 points lost: at least 10": {
            name: str(item["conditions"]) for name, item in mild.items()
        },
        "points by which the estimate without labels errs there: at most 2": {
            name: f"{100 * item['shadow']['mean_absolute_error']:.2f}" for name, item in mild.items()
        },
        "share of its 95 % intervals that hold the truth: at least 93 %": {
            name: f"{100 * item['shadow']['coverage']:.0f} %" for name, item in mild.items()
        },
    }
    models = (*document["models"], ALL)
    rows = [(bar, *(values.get(model, "-") for model in models)) for bar, values in found.items()]
    return "\n".join(table(("bar", *models), rows, left=1))


def _detectors(document: Mapping[str, Any]) -> str:
    found = document["detection"]["detectors"]
    header = (
        "detector",
        "median delay",
        "wrong at random",
        "damaged weights",
        "p90",
        "found",
        "false alarms / 100k requests",
    )
    rows = [
        (
            title,
            f"{one['median_delay_samples']:.0f}",
            *(
                f"{one['median_by_fault'].get(kind, float('nan')):.0f}"
                for kind in ("wrong at random", "damaged weights")
            ),
            f"{one['p90_delay_samples']:.0f}",
            f"{100 * one['found_ratio']:.0f} %",
            f"{one['false_alarms_per_100k_requests']:.2f}",
        )
        for title, one in found.items()
    ]
    return "\n".join(table(header, rows, left=1))


def _replay(document: Mapping[str, Any]) -> str:
    found = document["detection"]["clean replay"]
    return (
        f"The whole watch on clean replays of {found['requests']:,} requests, one in a hundred of them sampled: "
        f"{found['demotions_per_100k_requests']:.2f} demotions and {found['warnings_per_100k_requests']:.2f} warnings "
        "in 100,000 requests."
    )


def _witnesses(document: Mapping[str, Any]) -> str:
    models = tuple(document["models"])
    header = (
        "what is damaged",
        "cases",
        "full out: with witnesses",
        "smaller out",
        "median delay",
        "smaller out: without",
        *(f"{model}: full / smaller" for model in models),
    )
    rows = []
    for fault, found in document["witnesses"].items():
        delay = found["median_delay_samples"]
        shares = (_percent(found, figure) for figure in ("full_out_ratio", "smaller_out_ratio"))
        own = (
            f"{_percent(one, 'full_out_ratio')} / {_percent(one, 'smaller_out_ratio')}" if one else "-"
            for one in map(found["by model"].get, models)
        )
        median, without = "-" if delay is None else f"{delay:.0f}", _percent(found, "smaller_out_without_ratio")
        rows.append((fault, str(found["cases"]), *shares, median, without, *own))
    caption = (
        f"Who is demoted or quarantined first, within {MOST} samples of a smaller variant, with and without witnesses; "
        "the last columns are with them."
    )
    return "\n".join([caption, "", *table(header, rows, left=1)])


def _percent(found: Mapping[str, Any], figure: str) -> str:
    return f"{100 * found[figure]:.0f} %"


def _estimates(document: Mapping[str, Any]) -> str:
    estimates = document["estimates"]
    groups = {"clean": estimates["clean"]}
    groups |= {band: estimates["by band"][band] for band in BANDS}
    groups |= {f"- model {name}": found for name, found in estimates["by model"].items()}
    groups |= {f"- {name}": found for name, found in estimates["by condition"].items()}
    for kind in ("kinds the build also perturbs by", "kinds it has never seen"):
        groups[f"- {kind}"] = estimates[kind]
    groups["all conditions"] = estimates["all"]
    header = ("condition", "cases", *(f"{method}: error" for method in METHODS), "shadow: 95 % covers", "half width")
    rows = []
    for name, found in groups.items():
        if not found["cases"]:
            continue
        errors = (f"{100 * found[method]['mean_absolute_error']:.1f}" for method in METHODS)
        spans = found["shadow"]
        cells = (f"{100 * spans['coverage']:.0f} %", f"{100 * spans['half_width']:.1f}")
        rows.append((name, str(found["cases"]), *errors, *cells))
    caption = f"Mean absolute error in points; lines that begin with a dash are of conditions with {MILD}."
    return "\n".join([caption, "", *table(header, rows, left=1)])


def _inputs(document: Mapping[str, Any]) -> str:
    lines = []
    for model, conditions in document["inputs"].items():
        tests = tuple(next(iter(conditions.values())))
        rows = [
            (condition, *(f"{100 * shares[test]:.0f} %" for test in tests)) for condition, shares in conditions.items()
        ]
        lines += [f"{model}: share of windows of {WINDOW} rows that a test at p < 0.01 calls different.", ""]
        lines += [*table(("condition", *tests), rows, left=1), ""]
    return "\n".join(lines).rstrip()
