"""Who is wrong where a variant and full differ? Another variant is asked, and full is no longer right by definition.

A *witness* sees the row too. With d the loss between two answers, f full's, v the variant's and w the witness's,

    blame = max(0, min over witnesses of (min(d(f, v), d(f, w)) - d(v, w)))

is how much closer v and every w lie to one another than any of them to f. For classes it is 1 where v and all witnesses
say the same and full something else, else 0. Blame is taken off the variant's loss, and is the loss of full: one that
is the odd one out answers for it himself.

**Why that is allowed to prove something.** Blame is never more than d(f, v) nor any d(f, w), so that its mean is at
most the least of what these variants' manifests allow, and the test that proves a variant worse (``sequential``) proves
full worse at the same rate of false alarms. The variant's loss only becomes less, and its false alarms no more.

**Whose word counts.** Faults come in families. A witness is of another *lineage*, the network that its weights came
from (``quantized`` is full's own network, ``pruned-quantized`` the pruned one's), one for each lineage, and all must
agree: a variant that errs on new inputs in the way of its kind is not acquitted by its twin, nor full blamed while its
own quantized form says the same as it. At least one witness must not share the variant's *arithmetic* either: what an
integer kernel computes wrongly, it computes wrongly in all of them. Who is demoted or quarantined is not heard.

**When it is wrong.** Where two lineages are damaged alike, or fall for the same new inputs alike, and no quantized form
of full is there to contradict. With one smaller variant, or smaller ones of one lineage alone, there are two answers
and no third: full is believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from service.policy.drift.lifecycle import SEVERITY
from service.policy.drift.sequential import bounds_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from service.domain.drift import AllowedLoss
    from service.policy.drift.lifecycle import Transition
    from service.policy.drift.pairs import Pair
    from service.policy.drift.watch import VariantWatch

_REDUCED: Final = "quantized"


class Word(NamedTuple):
    """How far a witness's answer to a row lies from the variant's and from full's, each a loss 0..1."""

    from_variant: float
    from_full: float


@dataclass(frozen=True, slots=True)
class Member:
    """A smaller variant that can be compared with full."""

    name: str
    tier: str
    allowed: AllowedLoss

    @property
    def lineage(self) -> str:
        """The tier of the network that its weights came from."""
        return self.tier.removesuffix(_REDUCED).removesuffix("-") or "full"

    @property
    def is_reduced(self) -> bool:
        """Whether it computes in a lower precision."""
        return self.tier.endswith(_REDUCED)


def choose_witnesses(variant: Member, others: Iterable[Member]) -> tuple[Member, ...]:
    """Return who is asked about ``variant``: one for each other lineage, nobody where all share its arithmetic."""

    def shares_arithmetic(other: Member) -> bool:
        return variant.is_reduced and other.is_reduced

    chosen: dict[str, Member] = {}
    for other in sorted(others, key=lambda item: (shares_arithmetic(item), item.allowed.rate)):
        if other.lineage != variant.lineage:
            chosen.setdefault(other.lineage, other)
    return () if all(map(shares_arithmetic, chosen.values())) else tuple(chosen.values())


def blame_full(pair: Pair, words: Sequence[Word]) -> float:
    """Return how much of a pair's loss is full's, 0..1; without a witness none of it."""
    blames = (min(pair.loss, item.from_full) - item.from_variant for item in words)
    return max(0.0, min(blames, default=0.0))


@dataclass(frozen=True, slots=True)
class Panel:
    """The watches over one model's variants, and who of them speaks of whom; ``watches`` is the caller's own."""

    full: str
    tiers: Mapping[str, str]
    watches: Mapping[str, VariantWatch]

    @property
    def is_full_doubted(self) -> bool:
        """Whether full is out for what others say of it, or by a hand: then nobody is judged by it."""
        return self.full in self.watches and self.watches[self.full].is_blamed

    def witnesses_of(self, name: str) -> tuple[str, ...]:
        """Return which variants are to be asked where ``name`` differs from full."""
        return tuple(item.name for item in self._witnesses(name))

    def is_apart(self, name: str, pair: Pair) -> bool:
        """Tell whether a pair differs by more than is usual, so that witnesses are worth their time."""
        allowed = self.watches[name].reference.allowed if name in self.watches else None
        return allowed is not None and pair.loss > allowed.rate

    def nearest(self) -> str:
        """Return the variant, of those with witnesses, that differs least from full; '' where there is none."""
        members = sorted(self._members(), key=lambda item: item.allowed.rate)
        return next((item.name for item in members if self._witnesses(item.name)), "")

    def allowed_blame(self) -> float:
        """Return the mean blame that the manifests allow full, whoever it is compared with."""
        courts = [(item, *self._witnesses(item.name)) for item in self._members()]
        return max((min(item.allowed.rate for item in court) for court in courts if len(court) > 1), default=0.0)

    def compared(self, name: str, pair: Pair, words: Sequence[Word]) -> list[tuple[str, Transition]]:
        """Take a shadow sample of ``name`` with what its witnesses said; return what follows, for whom."""
        blame, court = blame_full(pair, words), self._court(name)
        found = []
        if len(court) > 1 and self.full in self.watches:
            bounds = zip(*(bounds_at(item.allowed, pair.full_log_odds) for item in court), strict=False)
            doubt = self.watches[self.full].blamed(blame, tuple(map(min, bounds)))
            found += [(self.full, doubt)] if doubt is not None else []
        if self.is_full_doubted:
            for other in self._members():
                self.watches[other.name].forget_pairs()
            return found
        transition = self.watches[name].compared(pair._replace(loss=pair.loss - blame))
        return found + ([(name, transition)] if transition is not None else [])

    def _court(self, name: str) -> tuple[Member, ...]:
        """Return the variant and its witnesses."""
        return (*(item for item in self._members() if item.name == name), *self._witnesses(name))

    def _members(self) -> list[Member]:
        return [
            Member(name, self.tiers[name], watch.reference.allowed)
            for name, watch in self.watches.items()
            if name != self.full and watch.reference.allowed is not None
        ]

    def _witnesses(self, name: str) -> tuple[Member, ...]:
        members = self._members()
        judged = next((item for item in members if item.name == name), None)
        heard = [item for item in members if item is not judged and _is_believed(self.watches[item.name])]
        return () if judged is None else choose_witnesses(judged, heard)


def _is_believed(watch: VariantWatch) -> bool:
    return SEVERITY[watch.standing.state] < SEVERITY["demoted"]
