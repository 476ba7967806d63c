"""Domination: which variants nobody should ever be given, because another is better in every way.

B dominates A when all of these hold, and at least one of them strictly:

- B is no less accurate: its measured accuracy on the same test rows is at least A's;
- B is no larger: its file has at most A's bytes;
- B is no slower: its p50 at one thread is at most 1.05 times A's at EVERY batch size. "Strictly faster" likewise means
  by more than 5 % at some batch size. Variants are timed in interleaved rounds, where medians repeat within a few per
  cent: a smaller difference is noise, and must neither save a variant nor sink it.

Accuracy is compared as measured, because that is what routing ranks by: a variant that measured lower, and is neither
smaller nor faster, would never be chosen anyway. Full is the exception. It is the reference, and "no less accurate
than full" on a few hundred rows is a claim, not a finding: full is dominated only by a variant proven at most 0.1
points worse (non-inferiority verdict ``pass`` at 0.001), which small test splits cannot give. Until then full stays in
routing and its reason says so.

Only variants that passed their gates can dominate. The relation is that of a Pareto front (Kung, Luccio, Preparata
1975) with a tolerance; with six variants, comparing all pairs is the clearest algorithm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from variants.manifest import Routing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from variants.manifest import Gate

TOLERANCE: Final = 1.05
PROOF_MARGIN: Final = 0.001


@dataclass(frozen=True, slots=True)
class Contender:
    """What domination looks at: ``p50_s`` is by batch size at one thread, the same sizes for all contenders.

    ``is_full`` marks the reference; ``is_proven`` that it is non-inferior to full at 0.1 points.
    """

    name: str
    accuracy: float
    file_bytes: int
    p50_s: Mapping[int, float]
    gates: tuple[Gate, ...]
    is_full: bool = False
    is_proven: bool = False

    @property
    def missed(self) -> tuple[Gate, ...]:
        """The gates not passed."""
        return tuple(gate for gate in self.gates if not gate.passed)


def decide_routing(contenders: Sequence[Contender]) -> dict[str, Routing]:
    """Return for each contender whether routing may choose it, and why."""
    fit = [contender for contender in contenders if not contender.missed]
    return {contender.name: _decide(contender, fit) for contender in contenders}


def dominates(better: Contender, worse: Contender) -> bool:
    """Tell whether ``better`` is as good as ``worse`` in accuracy, size and every p50, and better in one."""
    if worse.is_full and not better.is_proven:
        return False
    return _is_no_worse(better, worse) and _is_better_somewhere(better, worse)


def _decide(contender: Contender, fit: Sequence[Contender]) -> Routing:
    if contender.missed:
        reason = "; ".join(f"misses gate {gate.name}: {gate.detail}" for gate in contender.missed)
        return Routing(state="rejected", reason=reason, gates=contender.gates)
    above = [other for other in fit if dominates(other, contender)]
    if above:
        best = next((other for other in above if not any(dominates(third, other) for third in fit)), above[0])
        reason = f"dominated by {best.name}, which is no less accurate, no larger and no slower at any batch size"
        return Routing(state="dominated", reason=reason, gates=contender.gates)
    return Routing(state="routable", reason=_why_routable(contender, fit), gates=contender.gates)


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
    )


def _is_better_somewhere(better: Contender, worse: Contender) -> bool:
    return (
        better.accuracy > worse.accuracy
        or better.file_bytes < worse.file_bytes
        or any(TOLERANCE * better.p50_s[size] < p50_s for size, p50_s in worse.p50_s.items())
    )
