"""How a server of a remote variant stands, for those who watch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

OUTCOMES: Final = ("answered", "unavailable", "failed", "silent", "out_of_time")
"""What becomes of a call: answered; not reached, or not taken; failed, or unreadable; no answer for long; ended before
that, by its client or its deadline."""


@dataclass(frozen=True, slots=True)
class EndpointState:
    """One server at this moment, and its calls so far by outcome."""

    model: str
    variant: str
    endpoint: str
    is_up: bool
    is_ejected: bool
    inflight: int
    calls: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RemoteState:
    """One remote variant at this moment: calls repeated so far, repeats that its retry budget refused, and panic.

    ``is_panicking`` where so many of its servers are ejected that ejections do not count.
    """

    model: str
    variant: str
    retries: int
    retries_refused: int
    is_panicking: bool
