"""How many of a variant's answers are looked at a second time.

The policy's share is the usual one, and what is known decides how far it is followed: evidence grows by samples and not
by their share of the traffic, and each costs the same. A variant with little traffic is looked at more, so that
something is known of it within minutes, and one with much traffic less. A new one, whose file may be broken, is looked
at more, and one under suspicion much more, so that the suspicion is soon proof or gone. Shares that depend on what was
seen before leave sequential tests valid, because they are fixed before the next sample is drawn. What all of it may
cost is bounded elsewhere, by CPU time.
"""

from __future__ import annotations

from typing import Final

FEW: Final = 60
"""Samples below which a variant is new: about as many as a drop of five points takes to be proven."""
ENOUGH_HZ: Final = 100.0
"""Times the share: at the usual one of 1 % one sample a second, which a variant with 100 requests a second has."""

LEAST_HZ: Final = 0.5
"""Where so many come: a smaller share is not gone by."""

_NEW_HZ: Final = 2.0
_NEW_ENOUGH_HZ: Final = 200.0
"""Times the share."""
_SUSPECT_HZ: Final = 10.0
_RECOVERY_HZ: Final = 2.0
_SUSPICION: Final = 0.02
"""One disagreement where full is sure says more than that, and about twelve agreements refute it."""


def choose_hz(share: float, rate_hz: float, suspicion: float, samples: int) -> float:
    """Return how many of a variant's answers, of which ``rate_hz`` come each second, to run in the shadow a second.

    It may be more than come. ``share`` is the policy's; ``suspicion`` is the evidence of late against the variant as a
    share of what warns; ``samples`` is how often it was compared by now.
    """
    if share <= 0.0:
        return 0.0
    usual_hz = share * rate_hz
    if suspicion >= _SUSPICION:
        return max(usual_hz, _SUSPECT_HZ)
    if samples < FEW:
        return max(min(usual_hz, _NEW_ENOUGH_HZ * share), _NEW_HZ)
    return max(min(usual_hz, ENOUGH_HZ * share), LEAST_HZ)


def choose_reversed_share(share: float, rate_hz: float, *, is_out: bool) -> float:
    """Return which share (0..1) of others' answers, ``rate_hz`` of them, is asked of a variant without its claim.

    One that ``is_out`` may take half a minute to recover: what CPU time there is belongs to those that answer.
    """
    if not is_out:
        return choose_share(rate_hz, choose_hz(share, rate_hz, 1.0, 0))
    return choose_share(rate_hz, max(share * rate_hz, _RECOVERY_HZ) if share > 0.0 else 0.0)


def choose_share(rate_hz: float, wanted_hz: float) -> float:
    """Return which share (0..1) of ``rate_hz`` answers to look at for ``wanted_hz`` of them; all where few come."""
    if wanted_hz <= 0.0:
        return 0.0
    return min(1.0, wanted_hz / rate_hz) if rate_hz > 0.0 else 1.0


def choose_most(wanted_hz: float, seconds: float) -> float:
    """Return how many answers may be taken in ``seconds`` where ``wanted_hz`` are meant to be, however many come.

    A share is of the rate that was: after a pause it is too large for what comes then.
    """
    return 1.0 + 2.0 * wanted_hz * seconds
