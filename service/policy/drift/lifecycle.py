"""What happens to a variant that drifts: a state machine that is given evidence and returns transitions.

::

    healthy --suspicion--> warned --proof--> demoted --proof of a severe drop--> quarantined
       ^                     |                  |                                    |
       +------it passed------+                  +-------------- recovered -----------+
       |                                                           v
       +----------------- probation passed ------------------- restored --suspicion--> demoted

- ``warned``: routed as before; more of its answers should be compared.
- ``demoted``: it no longer claims its manifest's accuracy and is routed by the estimate.
- ``quarantined``: it gets no traffic; its answers are only computed in the shadow of others, which is how it recovers.
- ``restored``: routed as before, on probation; a suspicion, which would otherwise only warn, demotes at once.

Hysteresis: what clears is another test than what alarms (``sequential.FallTest`` against a limit above the allowed
rate), a warning ends only below a tenth of what began it, and a restored variant is on probation. A hand may set any
state; the machine then rests until the hand lets go. Full has no bigger one to be compared with: its pairs are what
witnesses say of it (``witnesses``), which may quarantine it. Labels, which tell of changed inputs as of damage, demote
it at most.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from service.domain.drift import DriftPolicy, DriftState

SEVERITY: Final[dict[DriftState, int]] = {"healthy": 0, "restored": 0, "warned": 1, "demoted": 2, "quarantined": 3}
_CLEARED: Final = ("healthy", "restored")
_CALMED: Final = 0.1


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known at one moment. The first five are run lengths (``sequential``), in samples.

    ``drop`` and ``severe`` are of pairs, ``label_drop`` and ``label_severe`` of late labels, ``recovery`` of either,
    since the last transition. ``shifted`` names the distributions that differ. ``samples`` counts pairs and labels
    since the last transition. The rest is for the reader: means over the window, ``None`` where there is none.
    """

    drop: float = 0.0
    severe: float = 0.0
    label_drop: float = 0.0
    label_severe: float = 0.0
    recovery: float = 0.0
    shifted: tuple[str, ...] = ()
    samples: int = 0
    loss: float | None = None
    allowed_loss: float | None = None
    accuracy: float | None = None
    claimed_accuracy: float | None = None
    estimate: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a variant stands; ``is_held`` while a hand keeps it there."""

    state: DriftState = "healthy"
    is_held: bool = False


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of standing, why, and on what evidence; ``by_hand`` names who did it, if anybody."""

    before: DriftState
    after: DriftState
    reason: str
    evidence: Evidence
    by_hand: str = ""


def advance(standing: Standing, evidence: Evidence, policy: DriftPolicy, *, is_full: bool = False) -> Transition | None:
    """Return the transition that ``evidence`` calls for, or ``None``."""
    if standing.is_held:
        return None
    after, reason = _judge(standing.state, evidence, policy, _source(evidence, is_full=is_full))
    if after not in _CLEARED:
        limit = _severest(policy, is_held_up=is_full and evidence.severe < policy.demote_run_length)
        after = after if SEVERITY[after] <= SEVERITY[limit] else limit
        if SEVERITY[after] <= SEVERITY[standing.state]:
            return None
    elif after == standing.state:
        return None
    return Transition(standing.state, after, reason, evidence)


def set_by_hand(standing: Standing, state: DriftState, who: str, evidence: Evidence) -> tuple[Standing, Transition]:
    """Return the held standing and the transition of a hand that sets ``state``."""
    transition = Transition(standing.state, state, f"set by {who}", evidence, by_hand=who)
    return Standing(state, is_held=True), transition


def let_go(standing: Standing) -> Standing:
    """Return the standing with the machine at work again."""
    return replace(standing, is_held=False)


def _judge(state: DriftState, evidence: Evidence, policy: DriftPolicy, source: str) -> tuple[DriftState, str]:
    """Return the state that the evidence calls for, whatever the policy's limit, and why."""
    if max(evidence.severe, evidence.label_severe) >= policy.demote_run_length:
        return "quarantined", f"{source} prove a severe drop"
    if state in {"demoted", "quarantined"}:
        return ("restored", "recovered") if evidence.recovery >= policy.restore_run_length else (state, "")
    drop = max(evidence.drop, evidence.label_drop)
    if drop >= policy.demote_run_length:
        return "demoted", f"{source} prove a drop"
    if drop >= policy.warn_run_length:
        return ("demoted" if state == "restored" else "warned"), f"{source} make a drop likely"
    return _judge_calm(state, evidence, policy)


def _judge_calm(state: DriftState, evidence: Evidence, policy: DriftPolicy) -> tuple[DriftState, str]:
    """Judge a variant of which no drop is likely."""
    if evidence.shifted and state == "healthy":
        return "warned", f"distributions differ: {', '.join(evidence.shifted)}"
    if state == "restored" and evidence.samples >= policy.probation:
        return "healthy", "probation passed"
    is_calm = max(evidence.drop, evidence.label_drop) < _CALMED * policy.warn_run_length
    return ("healthy", "calm again") if state == "warned" and is_calm and not evidence.shifted else (state, "")


def _source(evidence: Evidence, *, is_full: bool) -> str:
    if evidence.label_drop > evidence.drop:
        return "labels"
    return "variants that agree with one another and not with it" if is_full else "shadow samples"


def _severest(policy: DriftPolicy, *, is_held_up: bool) -> DriftState:
    return "demoted" if is_held_up and SEVERITY[policy.most] > SEVERITY["demoted"] else policy.most
