"""The watch over one model's variants: what the taps took becomes evidence, evidence becomes verdicts.

Used by one thread, off the request path. What routing does by the verdicts is decided in ``policy.judged``.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np

from service.domain.verdicts import HEALTHY, Happening, Verdict
from service.engine.drift.predictions import KeptState
from service.engine.drift.shadows import full_of
from service.engine.drift.taps import ModelTaps
from service.policy.drift.distributions import compare_summaries
from service.policy.drift.lifecycle import SEVERITY, Standing
from service.policy.drift.summary import summarise
from service.policy.drift.watch import FEWEST_FOR_SHIFT, VariantWatch
from service.policy.drift.witnesses import Panel, Word
from service.policy.drift.words import in_words
from service.policy.sampling import FEW, choose_hz, choose_most, choose_reversed_share, choose_share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from service.domain.drift import DriftPolicy, VariantReference
    from service.domain.verdicts import Action
    from service.engine.drift.predictions import Prediction
    from service.engine.drift.references import ModelReference
    from service.engine.drift.shadows import Compared, Shadows
    from service.engine.drift.taps import Answer, Sample
    from service.engine.loaded import LoadedModel
    from service.policy.drift.lifecycle import Transition
    from service.policy.drift.pairs import Agreement, Pair

WATCHED_HZ: Final = 20.0
"""Answers a second of each variant whose confidence and inputs are looked at."""

_MOST_HISTORY: Final = 50
_NOTHING: Final[tuple[Literal["drift"], str]] = ("drift", "")
_SCORES: Final = ("FP16", "FP32", "FP64")
_MOST_ELEMENTS: Final = 200_000
"""Summarised at a time, which takes a millisecond or two."""

_NOTICED: Final = 0.002
"""A change of an estimate that is less is left to later: each one makes routes anew."""


class OnHappening(Protocol):
    """Called when a variant's state changes."""

    def __call__(self, model: str, variant: str, happening: Happening) -> None:
        """Tell it."""


class ModelWatch:
    """One loaded model's watches, tests and history."""

    def __init__(
        self,
        model: LoadedModel,
        reference: ModelReference,
        shadows: Shadows,
        wall: Callable[[], float],
        on_happening: OnHappening,
    ) -> None:
        """Begin with nothing seen; ``wall`` is the time since 1970, for the history."""
        self.model = model
        self.reference = reference
        self.taps = ModelTaps(model, shadows, seed=0)
        self.full = full_of(model)
        self.has_scores = model.info.outputs[0].datatype in _SCORES
        self.policy: DriftPolicy = model.policy.drift.as_policy()
        self.watches = {name: self._watch(name) for name in self.taps.taps if name in reference.variants}
        self.panel = Panel(self.full, {item.name: item.tier for item in model.info.variants}, self.watches)
        if self.full in self.watches:
            full = self.watches[self.full]
            self.watches[self.full] = replace(full, allowed_blame=self.panel.allowed_blame())
        # Of the panel, not of this watch: in a circle with the taps it would outlive the model.
        self.taps.summon = partial(_summon, self.panel, reference.agreement)
        self.history: dict[str, deque[Happening]] = {name: deque(maxlen=_MOST_HISTORY) for name in self.watches}
        self.feedback: Counter[str] = Counter(joined=0, unknown=0, unfit=0)
        self.samples: Counter[str] = Counter()
        self.rates_hz = dict.fromkeys(self.taps.taps, 0.0)
        self._summaries: dict[str, deque[NDArray[Any]]] = {
            item.name: deque(maxlen=self.policy.window) for item in reference.inputs
        }
        self.input_p: dict[str, float] = {}
        self.in_force: dict[str, Verdict] = dict(model.verdicts)
        self.digests = {item.name: item.digest for item in model.info.variants}
        self.since_s = dict.fromkeys(self.watches, 0.0)  # wall: when evidence began to gather anew
        self.written: dict[str, KeptState] = {}
        self.set_by_hand_s = dict.fromkeys(self.watches, -inf)  # the shadows' clock
        self._wall = wall
        self._clock = shadows.clock
        self._on_happening = on_happening
        self._seen = dict.fromkeys(self.taps.taps, 0)
        self._happened_at: Counter[str] = Counter()  # how often a variant had been compared by its last change

    @property
    def is_on(self) -> bool:
        """Whether the policy has this model watched."""
        return self.model.policy.drift.most != "none"

    def take_over(self, before: ModelWatch) -> None:
        """Go on where the watch over the same model, loaded before, stood, for each variant whose file is the same."""
        self.feedback = before.feedback
        is_same_full = before.digests.get(before.full) == self.digests.get(self.full)
        for name, new in list(self.watches.items()):
            if name not in before.watches or before.digests[name] != self.digests[name]:
                continue
            old = before.watches[name]
            self.history[name], self.samples[name] = before.history[name], before.samples[name]
            self.since_s[name], self.set_by_hand_s[name] = before.since_s[name], before.set_by_hand_s[name]
            self._happened_at[name] = self.samples[name]
            asked, asks = ((item.reference, item.full, item.allowed_blame) for item in (old, new))
            asks_same = (old.policy, asked) == (self.policy, asks)
            self.watches[name] = old if asks_same and is_same_full else self._anew(new, old.standing)

    def resume(self, name: str, kept: KeptState) -> None:
        """Go on in the state that was left at a restart; the evidence for it has gone."""
        self.watches[name] = self._anew(self.watches[name], Standing(kept.state, kept.is_held))
        self.since_s[name] = kept.since_s
        self.history[name].append(Happening(kept.since_s, "healthy", kept.state, kept.by, kept.why))
        self.written[name] = kept

    def unwritten(self) -> list[tuple[str, KeptState]]:
        """Return the states that differ from what was written."""
        found = []
        for name, watch in self.watches.items():
            happened = [(item.by, item.evidence) for item in self.history[name]] or [_NOTHING]
            standing, digest = watch.standing, self.digests[name]
            now = KeptState(digest, standing.state, standing.is_held, self.since_s[name], *happened[-1])
            if now != self.written.get(name, KeptState(digest, "healthy", False, 0.0, *_NOTHING)):
                found.append((name, now))
        return found

    def follow_policy(self) -> None:
        """Go by the policy in force; what is known stays, but tests whose question has changed begin anew."""
        policy = self.model.policy.drift.as_policy()
        if policy != self.policy:
            self.policy = policy
            for name, watch in list(self.watches.items()):
                if not watch.follow(policy):
                    self.watches[name] = self._anew(watch, watch.standing)
        if not self.is_on:
            for name, watch in self.watches.items():
                if watch.standing.state != "healthy" and not watch.standing.is_held:
                    self._note(name, watch.set_by_hand("healthy", "the policy: drift.most is none"))
                    watch.let_go()

    # Evidence.

    def compared(self, item: Compared) -> None:
        """Take a shadow run; an answer from before a hand put the variant where it is tells nothing of it now."""
        for name in item.answers:
            if name in self.watches and name != self.full and item.sample.taken_s >= self._set_by_hand_s(name):
                for pair, words in self._heard(name, item):
                    self.samples[name] += 1
                    for whom, transition in self.panel.compared(name, pair, words):
                        self._note(whom, transition)

    def _set_by_hand_s(self, name: str) -> float:
        return max(self.set_by_hand_s[item] for item in (name, self.full) if item in self.set_by_hand_s)

    def _heard(self, name: str, item: Compared) -> Iterator[tuple[Pair, list[Word]]]:
        """Yield for each row the pair of a variant with full, and what witnesses say of the two."""
        compare, outputs = self.reference.agreement.compare, item.answers[name]
        answers = [item.heard[other] for other in self.panel.witnesses_of(name) if other in item.heard]
        beside = [(compare(answer, outputs), compare(item.full, answer)) for answer in answers]
        for row, pair in enumerate(compare(item.full, outputs)):
            yield pair, [Word(ours[row].loss, theirs[row].loss) for ours, theirs in beside]

    def watched(self, samples: Sequence[Sample]) -> None:
        """Take answers whose confidence and inputs are to be looked at."""
        by_variant: dict[str, list[NDArray[Any]]] = {}
        for sample in samples:
            by_variant.setdefault(sample.variant, []).append(sample.outputs[0])
        log_odds = getattr(self.reference.agreement, "log_odds", None)
        for name, outputs in by_variant.items():
            if log_odds is not None and name in self.watches and self.watches[name].reference.log_odds is not None:
                for value in log_odds([np.concatenate(outputs)]).tolist():
                    self.watches[name].answered(value)
        for name, summaries in self._summaries.items():
            rows = [sample.inputs[name] for sample in samples if name in sample.inputs]
            if rows and len({row.shape for row in rows}) == 1:
                summaries.extend(summarise(np.concatenate(rows[: 1 + _MOST_ELEMENTS // rows[0].size])))

    def is_of_now(self, answer: Prediction) -> bool:
        """Tell whether an answer came from the file that is loaded, after the variant came into its state.

        Labels come late: those of the time before a fault would let the variant back, those of the time before its
        repair would take it out again.
        """
        is_same_file = answer.digest == self.digests.get(answer.variant)
        return is_same_file and answer.at_s >= self.since_s.get(answer.variant, inf)

    def labelled(self, variant: str, score: float) -> None:
        """Take what a label says of one answer: 1 right, 0 wrong, or between."""
        if variant in self.watches:
            self._note(variant, self.watches[variant].labelled(score))

    def review(self) -> None:
        """Hold the windows of answers and inputs against the references."""
        for item in self.reference.inputs:
            rows = self._summaries[item.name]
            if len(rows) >= FEWEST_FOR_SHIFT and rows[0].shape == (len(item.means),):
                found = compare_summaries(item, np.stack(rows))
                self.input_p[item.name] = min(1.0, 2.0 * min(found.t2_p, found.ks_p))
        shifted = tuple(f"input {name}" for name, p in self.input_p.items() if p < self.policy.distribution_level)
        for name, watch in self.watches.items():
            self._note(name, watch.review(shifted))

    # What follows from it.

    def act(self, variant: str, action: Action, who: str) -> None:
        """Do what a person wants."""
        watch = self.watches[variant]
        if action == "quarantine":
            self._note(variant, watch.set_by_hand("quarantined", who))
        elif action == "hold":
            self._note(variant, watch.set_by_hand(watch.standing.state, who))
        elif action == "restore":
            self._note(variant, watch.set_by_hand("restored", who))
            watch.let_go()
        else:
            watch.let_go()
            state = watch.standing.state
            self._tell(variant, Happening(self._wall(), state, state, "hand", f"released by {who}"))
        if action in ("restore", "release"):
            self.set_by_hand_s[variant] = self._clock()
            self.since_s[variant] = self._wall()

    def verdicts(self) -> dict[str, Verdict]:
        """Return what routing has to know; variants that are as their manifest says are not among it."""
        found = {name: self._verdict(name, watch) for name, watch in self.watches.items()}
        return {name: verdict for name, verdict in found.items() if verdict != HEALTHY}

    def set_shares(self, elapsed_s: float) -> None:
        """Count how fast answers come, and choose how many are looked at."""
        base = self.model.policy.drift.shadow_share if self.is_on and self.full and self.has_scores else 0.0
        for name, tap in self.taps.taps.items():
            seen, self._seen[name] = tap.seen - self._seen[name], tap.seen
            self.rates_hz[name] += 0.5 * (seen / elapsed_s - self.rates_hz[name])
        total_hz = sum(self.rates_hz.values())
        # What routing no longer chooses is judged by what others answer, to be proven worse or to come back.
        reversed_shares = {
            name: choose_reversed_share(base, total_hz, is_out=watch.standing.state == "quarantined")
            for name, watch in self.watches.items()
            if watch.standing.state in ("demoted", "quarantined") and self._is_comparable(name)
        }
        nearest = self.panel.nearest()
        for name, tap in self.taps.taps.items():
            shadow = wanted_hz = 0.0
            if base and name != self.full and self._is_comparable(name):
                wanted_hz = self._wanted_hz(base, name, name)
                shadow = choose_share(self.rates_hz[name], wanted_hz)
                if self.panel.is_full_doubted:  # it recovers by what others answer
                    shadow = max(shadow, choose_reversed_share(base, self.rates_hz[name], is_out=True))
            others = {item: share for item, share in reversed_shares.items() if item != name}
            if base and name == self.full and nearest:  # or nobody would look at full where it answers everything
                wanted_hz = self._wanted_hz(base, name, nearest)
                others.setdefault(nearest, choose_share(self.rates_hz[name], wanted_hz))
            watched = choose_share(self.rates_hz[name], WATCHED_HZ) if self._is_watchable(name) else 0.0
            tap.set(shadow, watched, others)
            most_hz = max(wanted_hz, max(shadow, *others.values(), 0.0) * self.rates_hz[name])
            tap.shadow_allowance.allow(choose_most(most_hz, elapsed_s))
            tap.watch_allowance.allow(choose_most(WATCHED_HZ, elapsed_s))

    def _verdict(self, name: str, watch: VariantWatch) -> Verdict:
        state = watch.standing.state
        if not watch.standing.is_held and SEVERITY[state] > SEVERITY[self.policy.most]:
            state = self.policy.most  # the policy was stricter when the state was entered
        why = self.history[name][-1].evidence if self.history[name] else ""
        if state == "quarantined":
            return Verdict(state, is_out=True, why=why)
        if state == "healthy":
            return HEALTHY
        if state != "demoted":
            return Verdict(state, why=why)
        claim, before = watch.claim, self.model.verdicts.get(name, HEALTHY).accuracy
        if claim is not None and before is not None and abs(claim - before) < _NOTICED:
            claim = before
        return Verdict(state, accuracy=claim, why=why)

    def _is_comparable(self, name: str) -> bool:
        return name in self.watches and self.watches[name].reference.allowed is not None

    def _is_watchable(self, name: str) -> bool:
        has_confidence = name in self.watches and self.watches[name].reference.log_odds is not None
        return self.is_on and self.has_scores and (has_confidence or bool(self.reference.inputs))

    def _wanted_hz(self, base: float, name: str, judged: str) -> float:
        """Return how many of a variant's answers a second are to judge ``judged``, by what is known of it."""
        return choose_hz(base, self.rates_hz[name], self._suspicion(name), self.samples[judged])

    def _suspicion(self, name: str) -> float:
        watch = self.watches[name]
        is_looked_at = watch.standing.state == "warned" and self.samples[name] < self._happened_at[name] + FEW
        if is_looked_at or watch.standing.state in ("demoted", "restored"):
            return 1.0
        known = [watch.recent]
        if self.full in self.watches and self.watches[self.full].standing.state != "quarantined":
            known.append(self.watches[self.full].recent)
        return max(known) / self.policy.warn_run_length

    def _watch(self, name: str) -> VariantWatch:
        full: VariantReference | None = None if name == self.full else self.reference.variants.get(self.full)
        return VariantWatch(self.reference.variants[name], full, self.policy)

    def _anew(self, watch: VariantWatch, standing: Standing) -> VariantWatch:
        return replace(watch, policy=self.policy, standing=standing)

    def _note(self, name: str, transition: Transition | None) -> None:
        if transition is None:
            return
        by_hand = bool(transition.by_hand)
        beside = "other variants" if name == self.full else "full"
        said = transition.reason if by_hand else f"{transition.reason}: {in_words(transition.evidence, beside)}"
        happening = Happening(self._wall(), transition.before, transition.after, "hand" if by_hand else "drift", said)
        if _ends_what_was(transition):
            self.since_s[name] = happening.at_s
        self._tell(name, happening)

    def _tell(self, name: str, happening: Happening) -> None:
        self.history[name].append(happening)
        self._happened_at[name] = self.samples[name]
        self._on_happening(self.model.info.name, name, happening)


def _summon(panel: Panel, agreement: Agreement, name: str, full: Answer, outputs: Answer) -> tuple[str, ...]:
    """Return who is to be asked about a row; called by the thread of the shadow runs."""
    is_apart = any(panel.is_apart(name, pair) for pair in agreement.compare(full, outputs))
    return panel.witnesses_of(name) if is_apart else ()


def _ends_what_was(transition: Transition) -> bool:
    """Tell whether labels of earlier answers say nothing of the new state; those that proved a drop are of the drop."""
    evidence = transition.evidence
    is_worse = transition.after in ("demoted", "quarantined") and evidence.label_drop <= evidence.drop
    return bool(transition.by_hand) or transition.after == "restored" or is_worse
