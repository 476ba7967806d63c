"""Domination: which variants nobody should ever be given, because another is better in every way.

B dominates A when all of these hold, and at least one of them strictly:

- B is no less accurate: its measured accuracy on the same test rows is at least A's;
- B is no larger: its file has at most A's bytes;
- B is no slower: its p50 at one thread is at most 1.05 times A's at EVERY batch size;
- B needs no more memory: loaded, at most 1.05 times A's resident bytes plus 1 MiB.

Accuracy and bytes are exact, so any difference is strict. Time and memory are measured: variants are timed in
interleaved rounds, where medians repeat within a few per cent, and resident memory of a fresh process moves by some
hundred KiB with where the allocator puts pages. A difference within the tolerance is noise, and must neither save a
variant nor sink it; "strictly" there means by more than the tolerance. A file smaller by a few KiB is enough to be
strictly better when all the rest is equal: that variant costs less to send and to keep, and nothing in return.

Accuracy is compared as measured, because that is what routing ranks by: a variant that measured lower, and is neither
smaller, faster nor leaner, would never be chosen anyway. Full is the exception. It is the reference, and "no less
accurate than full" on a few hundred rows is a claim, not a finding: full is dominated only by a variant proven at most
0.1 points worse (non-inferiority verdict ``pass`` at 0.001), which small test splits cannot give. Until then full stays
in routing and its reason says so.

Only a variant that passed its gates AND stays in routing itself puts another out: tolerances are not transitive (three
variants may each be 5 % slower than the one before), and what is named in ``dominated_by`` must be there to take over.
Variants are therefore judged in order, most accurate first, then smallest, then fastest. Who cannot use the dominator
(a browser on which int8 gives wrong results, say) may still be given the dominated one: that is routing's to decide.

The relation is that of a Pareto front (Kung, Luccio, Preparata 1975) with a tolerance; with six variants, comparing
all pairs is the clearest algorithm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from variants.manifest import Routing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from variants.evidence import Accuracy, Gate, Latency, Memory

TOLERANCE: Final = 1.05
MEMORY_NOISE_BYTES: Final = 2**20
PROOF_MARGIN: Final = 0.001
MEANING: Final = (
    "which is no less accurate, its file no larger, no slower (within 5 %) at any batch size, and in need of no more "
    "memory (within 5 % and 1 MiB)"
)


class Findings(Protocol):
    """What was measured of a variant, by this build or by an earlier one, whose manifest tells."""

    @property
    def accuracy(self) -> Accuracy:
        """On test rows."""
        ...

    @property
    def latency(self) -> Latency:
        """By threads and rows."""
        ...

    @property
    def memory(self) -> Memory:
        """Of a process that has loaded it."""
        ...


@dataclass(frozen=True, slots=True)
class Contender:
    """What domination looks at: ``p50_s`` is by batch size at one thread, the same sizes for all contenders.

    ``memory_bytes`` is resident memory when loaded. ``is_full`` marks the reference; ``is_proven`` that it is
    non-inferior to full at 0.1 points.
    """

    name: str
    accuracy: float
    file_bytes: int
    memory_bytes: int
    p50_s: Mapping[int, float]
    gates: tuple[Gate, ...]
    is_full: bool = False
    is_proven: bool = False

    @classmethod
    def of(cls, name: str, findings: Findings, gates: tuple[Gate, ...], file_bytes: int, *, is_full: bool) -> Contender:
        """Return the contender that these findings make of a variant."""
        verdicts = findings.accuracy.non_inferiority
        return cls(
            name=name,
            accuracy=findings.accuracy.value,
            file_bytes=file_bytes,
            memory_bytes=findings.memory.loaded_bytes,
            p50_s={row.batch_size: row.p50_s for row in findings.latency.rows if row.threads == 1},
            gates=gates,
            is_full=is_full,
            is_proven=any(item.margin <= PROOF_MARGIN and item.verdict == "pass" for item in verdicts),
        )

    @property
    def missed(self) -> tuple[Gate, ...]:
        """The gates not passed."""
        return tuple(gate for gate in self.gates if not gate.passed)


def decide_routing(contenders: Sequence[Contender]) -> dict[str, Routing]:
    """Return for each contender whether routing may choose it, and why."""
    fit = sorted((contender for contender in contenders if not contender.missed), key=_order)
    kept: list[Contender] = []
    for contender in fit:
        if not any(dominates(other, contender) for other in kept):
            kept.append(contender)
    return {contender.name: _decide(contender, kept, fit) for contender in contenders}


def dominates(better: Contender, worse: Contender) -> bool:
    """Tell whether ``better`` is as good as ``worse`` in accuracy, size, every p50 and memory, and better in one."""
    if worse.is_full and not better.is_proven:
        return False
    return _is_no_worse(better, worse) and _is_better_somewhere(better, worse)


def _order(contender: Contender) -> tuple[float, int, float]:
    return -contender.accuracy, contender.file_bytes, sum(contender.p50_s.values())


def _decide(contender: Contender, kept: Sequence[Contender], fit: Sequence[Contender]) -> Routing:
    if contender.missed:
        reason = "; ".join(f"misses gate {gate.name}: {gate.detail}" for gate in contender.missed)
        return Routing(state="rejected", reason=reason, gates=contender.gates)
    if contender in kept:
        return Routing(state="routable", reason=_why_routable(contender, fit), gates=contender.gates)
    best = next(other for other in kept if dominates(other, contender))
    reason = f"dominated by {best.name}, {MEANING}"
    return Routing(state="dominated", reason=reason, dominated_by=best.name, gates=contender.gates)


def _why_routable(contender: Contender, fit: Sequence[Contender]) -> str:
    rivals = [other.name for other in fit if contender.is_full and _is_no_worse(other, contender)]
    rivals = [name for name in rivals if name != contender.name]
    if rivals:
        return (
            f"kept as the reference: {', '.join(rivals)} measured no worse, but too few rows to prove it within 0.1 %"
        )
    return "passes every gate and is dominated by none"


def _is_no_worse(better: Contender, worse: Contender) -> bool:
    return (
        better.accuracy >= worse.accuracy
        and better.file_bytes <= worse.file_bytes
        and all(better.p50_s[size] <= TOLERANCE * p50_s for size, p50_s in worse.p50_s.items())
        and better.memory_bytes <= TOLERANCE * worse.memory_bytes + MEMORY_NOISE_BYTES
    )


def _is_better_somewhere(better: Contender, worse: Contender) -> bool:
    return (
        better.accuracy > worse.accuracy
        or better.file_bytes < worse.file_bytes
        or any(TOLERANCE * better.p50_s[size] < p50_s for size, p50_s in worse.p50_s.items())
        or TOLERANCE * better.memory_bytes + MEMORY_NOISE_BYTES < worse.memory_bytes
    )
