"""How many of a variant's answers are looked at a second time.

The policy's share is the usual one. A variant with little traffic is looked at more, so that something is known of it
within minutes. One under suspicion is looked at much more, so that the suspicion is soon proof or gone: a share that
depends on what was seen before leaves sequential tests valid, because it is fixed before the next sample is drawn. What
all of it may cost is bounded elsewhere, by CPU time.
"""

from __future__ import annotations

from typing import Final

_LEAST_HZ: Final = 0.5
_SUSPECT_FACTOR: Final = 25.0
_SUSPECT_HZ: Final = 10.0
_MOST_HZ: Final = 50.0
_RECOVERY_HZ: Final = 2.0
_SUSPICION: Final = 0.1


def choose_share(share: float, rate_hz: float, suspicion: float) -> float:
    """Return which share (0..1) of a variant's answers, of which ``rate_hz`` come each second, is run in the shadow.

    ``share`` is the policy's; ``suspicion`` is the evidence against the variant as a share of what warns.
    """
    if share <= 0.0 or rate_hz <= 0.0:
        return share
    if suspicion >= _SUSPICION:
        wanted = max(share * _SUSPECT_FACTOR, _SUSPECT_HZ / rate_hz)
    else:
        wanted = max(share, _LEAST_HZ / rate_hz)
    return min(1.0, wanted, max(share, _MOST_HZ / rate_hz))


def choose_reversed_share(share: float, rate_hz: float, *, is_out: bool) -> float:
    """Return which share (0..1) of others' answers, ``rate_hz`` of them, is asked of a variant without its claim.

    One that ``is_out`` may take half a minute to recover: what CPU time there is belongs to those that answer.
    """
    if not is_out:
        return choose_share(share, rate_hz, 1.0)
    return min(1.0, max(share, _RECOVERY_HZ / rate_hz)) if share > 0.0 and rate_hz > 0.0 else share


def choose_watch_share(rate_hz: float, wanted_hz: float) -> float:
    """Return which share (0..1) of ``rate_hz`` answers to look at for ``wanted_hz`` of them."""
    return min(1.0, wanted_hz / rate_hz) if rate_hz > 0.0 else 1.0
