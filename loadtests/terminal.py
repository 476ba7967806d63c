"""A load test's figures as a terminal shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.markup import escape
from rich.table import Table

from loadtests.wording import count, duration, percent, share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType

    from loadtests.document import Document
    from loadtests.figures import Group, Summary

_SHOWN: Final = (50.0, 99.0)


def show(document: Document, console: Console) -> None:
    """Print the figures of one run."""
    for part in _parts(document):
        console.print(part)


def _parts(document: Document) -> Iterator[RenderableType]:
    summary, scenario = document.summary, document.scenario
    yield (
        f"\n[bold]{escape(scenario['name'])}[/bold]: {count(summary.all.offered)} requests for model "
        f"{scenario['model']} in {summary.duration_s:.1f} s ({summary.offered_hz:,.0f}/s, {scenario['protocol']}, "
        f"{document.inputs})"
    )
    yield _verdict(summary)
    table = Table()
    for column in ("requests", "offered", "on time", "correct and on time", "right of answers", "p50", "p99"):
        is_name = column == "requests"
        table.add_column(column, justify="left" if is_name else "right", overflow="fold" if is_name else "ellipsis")
    for group in (summary.all, *summary.classes):
        table.add_row(*_cells(group))
    table.add_section()
    for group in summary.variants:
        table.add_row(*_cells(group))
    yield table
    yield _tail(summary)


def _verdict(summary: Summary) -> str:
    lag = f"schedule lag p50 {duration(summary.lag_p50_s)}, p99 {duration(summary.lag_p99_s)}"
    lag += f", most {duration(summary.lag_most_s)}"
    lag += "; interrupted before its end" if summary.is_interrupted else ""
    if summary.is_valid:
        return f"[green]valid[/green]: {lag}"
    return f"[bold red]INVALID[/bold red]: {escape('; '.join(summary.faults))} ({lag})"


def _cells(group: Group) -> tuple[str, ...]:
    name = group.name if group.budget_s is None else f"{group.name} (budget {duration(group.budget_s)})"
    times = {item.percent: duration(item.value) for item in group.latency}
    return (
        escape(name),
        count(group.offered),
        share(group.attainment),
        share(group.effective_accuracy),
        share(group.accuracy_of_answers),
        *(times.get(percent, "") for percent in _SHOWN),
    )


def _tail(summary: Summary) -> str:
    ends = ", ".join(f"{name} {count(number)}" for name, number in summary.all.statuses.items())
    lines = [
        f"goodput {summary.goodput_hz:,.1f}/s of {summary.throughput_hz:,.1f}/s answered; ended: {ends}",
        "why: " + ", ".join(f"{name} {count(number)}" for name, number in summary.reasons.items() if number),
    ]
    if summary.reliability is not None:
        kept = percent(summary.reliability.kept_ratio)
        lines.append(
            f"predictions: {kept} of runs took no longer than predicted; real over predicted has median "
            f"{summary.reliability.ratio_p50:.2f} and p95 {summary.reliability.ratio_p95:.2f}"
        )
    if summary.lanes is not None:
        lines.append("lanes busy: " + ", ".join(percent(busy) for busy in summary.lanes.mean))
    if summary.gateway_cpu_s is not None and summary.cpu_s_per_on_time_correct is not None:
        what = "on-time answer" if summary.all.correct is None else "on-time correct answer"
        each = duration(summary.cpu_s_per_on_time_correct)
        lines.append(f"gateway CPU {summary.gateway_cpu_s:.2f} s, {each} for each {what}")
    return "\n".join(line for line in lines if not line.endswith(": "))
