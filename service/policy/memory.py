"""Which variants are held in memory, which make room, and when a swap pays.

Memory is counted in weights: variants with the same file share one copy, which is held or evicted as a whole. The size
of a copy is what the manifest measured. The rules:

1. At the start every model gets one variant: the fastest that leaves room for the smallest one of each model after
   it. Then every model gets the most accurate one that still fits, then the rest is filled from the most accurate
   down; so is room that becomes free later. If the smallest variants of all models fit together, every model holds
   at least one.
2. What a request cannot do without makes room for itself. Copies go by their uses, the least used first, and last of
   all those that are a model's fastest: bursts need them, though nobody asks for them on a quiet day. No model but the
   newcomer's own loses its last one. Where that frees too little, each other model keeps only its smallest.
3. What requests would rather have had may be worth a swap, in units of accuracy times requests. The gain of loading v
   is demand(v) times how much more accurate v is than the best held variant below it, which answers instead. The loss
   of evicting u is uses(u), less that demand where u is the one that answers instead, times how much less accurate the
   best held variant below u is, or the whole accuracy where there is none. A swap needs gain >= 2 * loss, so that it
   cannot pay to swap back under the same traffic, it never takes a model's fastest, and at most four happen in a
   minute.

Uses and demand halve every minute, which makes rule 2 the least recently / frequently used rule (LRFU, Lee et al.,
IEEE Transactions on Computers 2001). A rule per byte (GreedyDual-Size) would evict the large variants first, and these
are the accurate ones. Wrong where the manifest's sizes are: nothing here looks at the process.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

HALF_LIFE_S: Final = 60.0
_SWAP_FACTOR: Final = 2.0
_LEAST_GAIN: Final = 0.05
"""Accuracy times requests: ten requests that would each be half a point more likely right."""

_MOST_SWAPS: Final = 4
_SWAPS_WITHIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Holdable:
    """One variant as this policy sees it.

    ``weights`` names its copy in memory, of ``size_bytes``; variants with equal weights share it. ``compute_s`` is the
    time of one row. ``is_routable`` tells whether routing may choose it without a pin. ``uses`` are requests that it
    answered, ``demand`` those that would have preferred it, both decayed.
    """

    model: str
    variant: str
    weights: Hashable
    size_bytes: int
    accuracy: float
    compute_s: float
    is_routable: bool = True
    is_held: bool = False
    uses: float = 0.0
    demand: float = 0.0


@dataclass(frozen=True, slots=True)
class Swap:
    """Weights to load, and those to evict for them."""

    coming: Holdable
    leaving: tuple[Hashable, ...]


def decayed(count: float, age_s: float) -> float:
    """Return what is left of a count after a time."""
    return float(count * 2.0 ** (-max(0.0, age_s) / HALF_LIFE_S))


def held_bytes(items: Iterable[Holdable]) -> int:
    """Return the bytes of what is held, each copy once."""
    return sum({item.weights: item.size_bytes for item in items if item.is_held}.values())


def choose_first(items: Sequence[Holdable], room_bytes: float, held: Collection[Hashable] = ()) -> frozenset[Hashable]:
    """Return the weights to hold in ``room_bytes`` of free memory, with those that are ``held`` for nothing.

    A model that gets none does not fit.
    """
    chosen = _Chosen(room_bytes, set(held))
    models = [_of_model(items, model) for model in dict.fromkeys(item.model for item in items)]
    reserve = sum(min(item.size_bytes for item in model) for model in models)
    for model in models:
        smallest = min(model, key=lambda item: item.size_bytes)
        reserve -= smallest.size_bytes
        by_speed = sorted(model, key=lambda item: item.compute_s)
        chosen.take_first((item for item in by_speed if chosen.left_after(item) >= reserve), otherwise=smallest)
    for model in models:
        chosen.take_first(_best_first(model))
    for item in _best_first(items):
        chosen.take(item)
    return frozenset(chosen.weights)


def choose_leaving(items: Sequence[Holdable], coming: Holdable, budget_bytes: float) -> tuple[Hashable, ...] | None:
    """Return the weights to evict so that ``coming`` fits, none where it fits already; ``None``: it cannot fit."""
    needed = held_bytes(items) + coming.size_bytes - budget_bytes
    if needed <= 0 or any(item.is_held and item.weights == coming.weights for item in items):
        return ()
    held = [item for item in items if item.is_held]
    others = {item.model for item in held} - {coming.model}
    fastest = _fastest(held)

    def worth(copy: tuple[Holdable, ...]) -> tuple[bool, float, int]:
        return copy[0].weights in fastest, sum(item.uses for item in copy), -copy[0].size_bytes

    by_uses = sorted(_copies(held), key=worth)
    leaving = _evict(by_uses, needed, {model: _of_model(held, model) for model in others})
    if leaving is None:
        smallest = {min(_of_model(held, model), key=lambda item: item.size_bytes).weights for model in others}
        leaving = _evict([copy for copy in by_uses if copy[0].weights not in smallest], needed, {})
    return leaving


def choose_filling(items: Sequence[Holdable], budget_bytes: float) -> Holdable | None:
    """Return the best variant that fits into free room, ``None`` where none does."""
    absent = [item for item in items if item.is_routable and not item.is_held]
    return next((item for item in _best_first(absent) if choose_leaving(items, item, budget_bytes) == ()), None)


def choose_swap(
    items: Sequence[Holdable], budget_bytes: float, now_s: float, swapped_s: Sequence[float] = ()
) -> Swap | None:
    """Return the swap that pays most, ``None`` where none does; ``swapped_s`` are the moments of earlier swaps."""
    if sum(now_s - moment < _SWAPS_WITHIN_S for moment in swapped_s) >= _MOST_SWAPS:
        return None
    best, best_worth, fastest = None, 0.0, _fastest([item for item in items if item.is_held])
    for coming in items:
        if coming.is_held or not coming.is_routable or not coming.demand:
            continue
        leaving = choose_leaving(items, coming, budget_bytes)
        if leaving is None or not fastest.isdisjoint(leaving):
            continue
        gain, loss = _gain(coming, items), _loss(coming, items, leaving)
        if gain >= max(_LEAST_GAIN, _SWAP_FACTOR * loss) and gain - loss > best_worth:
            best, best_worth = Swap(coming, leaving), gain - loss
    return best


@dataclass(slots=True)
class _Chosen:
    """Weights chosen so far, and the room that is left."""

    room_bytes: float
    weights: set[Hashable] = field(default_factory=set)

    def left_after(self, item: Holdable) -> float:
        return self.room_bytes - (0 if item.weights in self.weights else item.size_bytes)

    def take(self, item: Holdable) -> bool:
        left = self.left_after(item)
        if left < 0:
            return False
        self.room_bytes = left
        self.weights.add(item.weights)
        return True

    def take_first(self, items: Iterable[Holdable], otherwise: Holdable | None = None) -> None:
        if not any(self.take(item) for item in items) and otherwise is not None:
            self.take(otherwise)


def _of_model(items: Iterable[Holdable], model: str) -> list[Holdable]:
    """Return a model's items; those that routing may choose, where there are any."""
    own = [item for item in items if item.model == model]
    return [item for item in own if item.is_routable] or own


def _fastest(held: Sequence[Holdable]) -> set[Hashable]:
    """Return the weights of each model's fastest variant in memory, of those that routing may choose."""
    models = {item.model: _of_model(held, item.model) for item in held}
    return {min(own, key=lambda item: item.compute_s).weights for own in models.values()}


def _best_first(items: Iterable[Holdable]) -> list[Holdable]:
    return sorted(items, key=lambda item: (not item.is_routable, -item.accuracy))


def _copies(held: Sequence[Holdable]) -> list[tuple[Holdable, ...]]:
    """Group what is held by its weights."""
    order = {weights: number for number, weights in enumerate(dict.fromkeys(item.weights for item in held))}
    grouped = sorted(held, key=lambda item: order[item.weights])
    return [tuple(copy) for _, copy in groupby(grouped, key=lambda item: order[item.weights])]


def _evict(
    copies: Sequence[tuple[Holdable, ...]], needed_bytes: float, protected: Mapping[str, Sequence[Holdable]]
) -> tuple[Hashable, ...] | None:
    """Return copies to evict, in this order, until enough is freed; no protected model loses all of its items."""
    left = {model: {item.weights for item in items} for model, items in protected.items()}
    leaving: list[tuple[Hashable, int]] = []
    freed = 0
    for copy in copies:
        weights = copy[0].weights
        if freed >= needed_bytes:
            break
        if any(left[item.model] <= {weights} for item in copy if item.model in left):
            continue
        for item in copy:
            left.get(item.model, set()).discard(weights)
        leaving.append((weights, copy[0].size_bytes))
        freed += copy[0].size_bytes
    if freed < needed_bytes:
        return None
    # A large one at the end may have made an earlier small one needless; the most used of those stay.
    for candidate in reversed(leaving[:-1]):
        if freed - candidate[1] >= needed_bytes:
            leaving.remove(candidate)
            freed -= candidate[1]
    return tuple(weights for weights, _ in leaving)


def _gain(coming: Holdable, items: Sequence[Holdable]) -> float:
    instead = _best_below(coming, items)
    return coming.demand * (coming.accuracy - (instead.accuracy if instead else 0.0))


def _loss(coming: Holdable, items: Sequence[Holdable], leaving: Collection[Hashable]) -> float:
    instead, loss = _best_below(coming, items), 0.0
    after = [item for item in items if item.is_held and item.weights not in leaving]
    for item in items:
        if item.is_held and item.weights in leaving:
            uses = max(0.0, item.uses - coming.demand) if item is instead else item.uses
            below = _best_below(item, [*after, replace(coming, is_held=True)])
            loss += uses * (item.accuracy - (below.accuracy if below else 0.0))
    return loss


def _best_below(item: Holdable, items: Iterable[Holdable]) -> Holdable | None:
    """Return the held variant that answers where ``item`` does not: the best one that is no more accurate."""
    others = (
        other
        for other in items
        if other.is_held
        and other.model == item.model
        and other.variant != item.variant
        and other.accuracy <= item.accuracy
    )
    return max(others, key=lambda other: other.accuracy, default=None)
