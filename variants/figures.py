"""A manifest's figures as words, the same in the terminal table and in the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from variants.contention import AGAIN, doubt

if TYPE_CHECKING:
    from variants.evidence import LatencyRow
    from variants.manifest import CascadeManifest, Machine, ModelManifest, VariantManifest

KIB = 1024
MICRO = 1e-6
MILLI = 1e-3


@dataclass(frozen=True, slots=True)
class Figure:
    """One column: its heading, what it means, and its text for each variant."""

    heading: str
    meaning: str
    texts: tuple[str, ...]


def figures(manifest: ModelManifest) -> tuple[Figure, ...]:
    """Return every column that both forms of the report show, variants in the manifest's order."""
    variants = manifest.variants
    full = cell(variants[0], 1)
    return (
        Figure("variant", "one built form of the model", tuple(v.name for v in variants)),
        Figure("parameters", "elements of weights", tuple(_count(v.size.parameters) for v in variants)),
        Figure("MACs", "multiply-accumulates for one row", tuple(_count(v.size.macs) for v in variants)),
        Figure("file", "bytes on disk", tuple(_bytes(v.size.file_bytes) for v in variants)),
        Figure("download", "bytes after zlib -9", tuple(_bytes(v.size.compressed_bytes) for v in variants)),
        Figure(
            "memory",
            "resident memory that loading and running adds",
            tuple(_bytes(v.memory.loaded_bytes) for v in variants),
        ),
        Figure("p50", "median compute time, one row, one thread", tuple(_time(cell(v, 1).p50_s) for v in variants)),
        Figure("p99", "99th percentile of the same", tuple(_time(cell(v, 1).p99_s) for v in variants)),
        *_predicted(variants),
        Figure(
            "speed-up",
            "full's p50 over this one's, same interleaved run",
            tuple(f"{full.p50_s / cell(v, 1).p50_s:.1f}x" for v in variants),
        ),
        Figure(
            manifest.metric,
            "share right on the test rows, with its 95 % interval",
            tuple(_accuracy(v.accuracy.value, v.accuracy.low, v.accuracy.high) for v in variants),
        ),
        *_beside(variants),
        Figure(
            "lost / gained",
            "test rows right in full and wrong here / the reverse",
            tuple(f"{v.accuracy.lost} / {v.accuracy.gained}" for v in variants),
        ),
        Figure("1 % verdict", "at most 1 point worse than full?", tuple(_verdict(v, 0) for v in variants)),
        Figure("0.1 % verdict", "at most 0.1 point worse than full?", tuple(_verdict(v, 1) for v in variants)),
        Figure("routing", "may routing choose it?", tuple(v.routing.state for v in variants)),
    )


def predicted_s(variant: VariantManifest) -> float | None:
    """Return the p50 that a search predicted for the variant, ``None`` for one that no search chose."""
    found = [step.parameters.get("p50_s") for step in variant.steps if step.name == "search"]
    return float(found[0]) if found and found[0] is not None else None


def _predicted(variants: tuple[VariantManifest, ...]) -> tuple[Figure, ...]:
    """Return a column for predicted latency where a search predicted any."""
    known = [predicted_s(variant) for variant in variants]
    texts = tuple(
        "-" if time_s is None else f"{_time(time_s)} ({time_s / cell(variant, 1).p50_s - 1.0:+.1%})"
        for time_s, variant in zip(known, variants, strict=True)
    )
    meaning = "the p50 that the search predicted before the variant was made, and how far that was off"
    return (Figure("predicted p50", meaning, texts),) if any(time_s is not None for time_s in known) else ()


def _beside(variants: tuple[VariantManifest, ...]) -> tuple[Figure, ...]:
    """Return a column for each other measure that every variant has."""
    names = [name for name in variants[0].accuracy.beside if all(name in v.accuracy.beside for v in variants)]
    return tuple(
        Figure(name, "of the same answers", tuple(f"{v.accuracy.beside[name]:.4g}" for v in variants)) for name in names
    )


def cascade_figures(manifest: ModelManifest) -> tuple[Figure, ...]:
    """Return every column of the cascades, in the manifest's order."""
    cascades = manifest.cascades
    full_s = cell(manifest.variants[0], 1).p50_s
    expected = [expected_s(manifest, cascade) for cascade in cascades]
    return (
        Figure("cascade", "its name in the plot", cascade_names(manifest)),
        Figure("answers", "the variant that answers first", tuple(c.variant for c in cascades)),
        Figure("escalates to", "the variant whose answer counts where", tuple(c.escalate_to for c in cascades)),
        Figure(
            "margin below",
            "the first one's two highest outputs differ by less than this, set on validation rows",
            tuple(f"{c.margin:.3g}" for c in cascades),
        ),
        Figure("escalated", "share of test rows where they do", tuple(f"{c.escalated_ratio:.1%}" for c in cascades)),
        Figure(
            "expected p50",
            "p50 of the first, and of the other for the share that escalates",
            tuple(_time(time_s) for time_s in expected),
        ),
        Figure(
            "speed-up",
            "full's p50 over the expected one",
            tuple(f"{full_s / time_s:.1f}x" for time_s in expected),
        ),
        Figure(
            manifest.metric,
            "share right on the test rows, with its 95 % interval",
            tuple(_accuracy(c.accuracy, c.low, c.high) for c in cascades),
        ),
        Figure(
            "lost / gained",
            "test rows right in the first alone and wrong together / the reverse",
            tuple(f"{c.lost} / {c.gained}" for c in cascades),
        ),
    )


def cascade_names(manifest: ModelManifest) -> tuple[str, ...]:
    """Return a short name for each cascade, in the manifest's order."""
    return tuple(f"C{number}" for number in range(1, len(manifest.cascades) + 1))


def expected_s(manifest: ModelManifest, cascade: CascadeManifest) -> float:
    """Return a cascade's expected compute time of one row on one thread."""
    first, other = manifest.variant(cascade.variant), manifest.variant(cascade.escalate_to)
    return cell(first, 1).p50_s + cascade.escalated_ratio * cell(other, 1).p50_s


def cell(variant: VariantManifest, batch_size: int, threads: int = 1) -> LatencyRow:
    """Return the latency row of a batch size; the smallest measured one if that was not measured."""
    rows = [row for row in variant.latency.rows if row.threads == threads] or list(variant.latency.rows)
    exact = [row for row in rows if row.batch_size == batch_size]
    return exact[0] if exact else min(rows, key=lambda row: row.batch_size)


def front(manifest: ModelManifest) -> tuple[VariantManifest, ...]:
    """Return the routable variants on the Pareto front of p50 and accuracy, fastest first."""
    best, kept = -1.0, []
    routable = [v for v in manifest.variants if v.routing.state == "routable"]
    for variant in sorted(routable, key=lambda v: (cell(v, 1).p50_s, -v.accuracy.value)):
        if variant.accuracy.value > best:
            best = variant.accuracy.value
            kept.append(variant)
    return tuple(kept)


def summary(manifest: ModelManifest) -> str:
    """Return one line on where the figures come from, and on what makes those of latency doubtful."""
    full = manifest.variants[0]
    most_threads = max(row.threads for row in full.latency.rows)
    doubtful = doubt(full.latency.others_cores, manifest.profiled_on.cores, most_threads)
    parts = (
        f"{manifest.model} version {manifest.version}, built {manifest.built_at} on {_named(manifest.machine)}",
        remeasured(manifest),
        f"{full.accuracy.rows} test rows of {full.accuracy.dataset}",
        f"seed {manifest.seed}",
        doubtful and f"{doubtful}; {AGAIN}",
    )
    return "; ".join(part for part in parts if part)


def remeasured(manifest: ModelManifest) -> str:
    """Return when and where latency and memory were measured anew; nothing where they are the build's."""
    measured = manifest.measured
    return "" if measured is None else f"latency and memory measured {measured.at} on {_named(measured.machine)}"


def _named(machine: Machine) -> str:
    return f"{machine.cpu} ({machine.cores} cores)"


def _accuracy(value: float, low: float, high: float) -> str:
    return f"{value * 100:.2f} % ({low * 100:.1f}-{high * 100:.1f})"


def _verdict(variant: VariantManifest, which: int) -> str:
    if variant.parent is None:
        return "reference"
    verdicts = sorted(variant.accuracy.non_inferiority, key=lambda item: -item.margin)
    return verdicts[which].verdict if which < len(verdicts) else "not judged"


def _time(time_s: float) -> str:
    return f"{time_s / MILLI:.2f} ms" if time_s >= MILLI else f"{time_s / MICRO:.0f} us"


def _bytes(count: int) -> str:
    return f"{count / KIB / KIB:.1f} MiB" if count >= KIB * KIB else f"{count / KIB:.0f} KiB"


def _count(count: int) -> str:
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= scale:
            return f"{count / scale:.3g} {letter}"
    return str(count)
