"""A routing decision after the fact: what could have answered, what did, and why not the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from service.domain.inference import Answer, Knobs

Verdict = Literal["chosen", "excluded", "failed", "too_slow", "no_gain", "above_level", "less_accurate"]
"""What became of a candidate: it answered; the request or the policy ruled it out; its run failed; it cannot be on
time; it is no faster than a more accurate one; it would have made others late or cost more than it gains; or it is just
less accurate than the one that answered."""


@dataclass(frozen=True, slots=True)
class CandidateVerdict:
    """A variant or a cascade as the decision saw it; ``compute_s`` is its predicted run, 0 where nobody asked."""

    name: str
    accuracy: float
    compute_s: float
    verdict: Verdict
    why: str


@dataclass(frozen=True, slots=True)
class Decision:
    """One answered request; seconds.

    ``arrived_s`` is in Unix time, ``timeout_s`` the hard deadline from the arrival. When the run began, ``slack_s`` of
    the budget was left, and ``queued`` other requests of the model waited on.
    """

    request_id: str
    protocol: str
    knobs: Knobs
    rows: int
    timeout_s: float
    arrived_s: float
    slack_s: float
    queued: int
    hardware_class: str
    answer: Answer
    candidates: tuple[CandidateVerdict, ...]
