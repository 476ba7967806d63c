"""A tune in words and tables, for a terminal, and as what JSON can hold."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from loadtests.tuner.judge import Verdict
from loadtests.tuner.score import mean_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from loadtests.tuner.confirm import Confirmed
    from loadtests.tuner.question import Limits, Question
    from loadtests.tuner.score import Figures
    from loadtests.tuner.tune import Tuned

_LIMIT_WORDS = {
    "attainment": ("attainment", 100.0, "points below the floor"),
    "accuracy": ("accuracy of answers", 100.0, "points below the floor"),
    "busy_ratio": ("CPU", 100.0, "points of the lanes' time above the ceiling"),
}


def show(tuned: Tuned, question: Question, console: Console) -> None:
    """Print the figures, the changes and the verdict."""
    table = Table(title="on arrivals that the search has not seen")
    table.add_column("policy", no_wrap=True)
    for name in ("on time %", "eff. acc. %", "acc. of answers %", "lanes busy %", "CPU ms/request"):
        table.add_column(name, justify="right")
    for name, figures in (("base", tuned.judgement.base), ("tuned", tuned.judgement.tuned)):
        table.add_row(name, *_cells(mean_of(figures)))
    table.add_section()
    table.add_row("tuned, as searched", *_cells(mean_of(tuned.promised)))
    console.print(table)
    for name, (before, after) in tuned.changes.items():
        console.print(f"  {name}: {before} -> {after}", markup=False)
    console.print(f"\n{verdict_in_words(tuned, question.limits)}", markup=False)
    console.print(
        f"{tuned.tried} simulations, {tuned.spent:.0f} runs of the tuning part, {tuned.wall_s:.0f} s"
        f"{'; interrupted, the best until then' if tuned.is_interrupted else ''}",
        style="dim",
    )


def verdict_in_words(tuned: Tuned, limits: Limits) -> str:
    """Return the verdict as a sentence."""
    judgement = tuned.judgement
    scale, unit = (1e3, "ms of CPU time per request") if limits.objective == "cost" else (100.0, "points")
    gain = judgement.gain
    interval = f"{scale * gain.value:+.3f} {unit}, 95 % interval {scale * gain.low:+.3f} to {scale * gain.high:+.3f}"
    if judgement.verdict is Verdict.BETTER:
        return f"The tuned policy is better: {interval}."
    if judgement.verdict is Verdict.NEEDED:
        broken = missed_in_words(judgement.base_missed)
        return f"The base policy breaks a limit ({broken}); the tuned one keeps all: {interval}."
    if judgement.verdict is Verdict.UNPROVEN:
        return f"No gain is proven ({interval}); the base thresholds stay."
    kept = "no policy is written" if judgement.base_missed else "the base thresholds, which keep all limits, stay"
    return f"Refused: the tuned policy breaks a limit ({missed_in_words(judgement.missed)}); {kept}."


def missed_in_words(missed: dict[str, float]) -> str:
    """Return which limits are broken, and by how much."""
    parts = []
    for name, amount in missed.items():
        words, scale, unit = _LIMIT_WORDS[name]
        parts.append(f"{words} {scale * amount:.2f} {unit}")
    return ", ".join(parts)


def show_confirmed(found: Sequence[Confirmed], console: Console) -> None:
    """Print what the real gateway did, beside what the simulator says of the same arrivals."""
    table = Table(title="at the real gateway, busiest stretch of the unseen arrivals")
    table.add_column("policy")
    for name in ("offered", "on time %", "simulated %", "eff. acc. %", "simulated %"):
        table.add_column(name, justify="right")
    for item in found:
        accuracy = "" if item.accuracy is None else f"{100 * item.accuracy:.2f}"
        table.add_row(
            item.name,
            str(item.offered),
            f"{100 * item.attainment:.2f}" if item.offered else "",
            f"{100 * item.predicted_attainment:.2f}",
            accuracy,
            f"{100 * item.predicted_accuracy:.2f}",
        )
    console.print(table)
    for item in found:
        for fault in item.faults:
            console.print(f"  {item.name}: an invalid run says nothing: {fault}", markup=False)


def document_of(tuned: Tuned, question: Question, confirmed: Sequence[Confirmed]) -> dict[str, Any]:
    """Return everything as what JSON can hold."""
    return {
        "verdict": tuned.judgement.verdict.value,
        "sentence": verdict_in_words(tuned, question.limits),
        "changes": {name: {"before": pair[0], "after": pair[1]} for name, pair in tuned.changes.items()},
        "judgement": tuned.judgement.document(),
        "promised": [asdict(item) for item in tuned.promised],
        "confirmed": [{**asdict(item), "attainment": item.attainment, "accuracy": item.accuracy} for item in confirmed],
        "limits": {name: value for name, value in asdict(question.limits).items() if value != float("inf")},
        "question": question.digest(),
        "simulations": tuned.tried,
        "runs_of_the_tuning_part": tuned.spent,
        "wall_s": tuned.wall_s,
        "is_interrupted": tuned.is_interrupted,
    }


def _cells(figures: Figures) -> tuple[str, ...]:
    return (
        f"{100 * figures.attainment:.2f}",
        f"{100 * figures.accuracy:.3f}",
        f"{100 * figures.answer_accuracy:.3f}",
        f"{100 * figures.busy_ratio:.1f}",
        f"{1e3 * figures.cpu_s:.3f}",
    )
