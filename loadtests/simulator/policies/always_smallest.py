"""Always smallest: the gateway pinned to its fastest variant.

Source: none needed. It marks the most that the lanes can carry, and how much accuracy is lost by always paying for the
worst moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtests.simulator.policy import LatePolicy

if TYPE_CHECKING:
    from service.policy.costs import Costs


def fastest(candidates: tuple[str, ...], costs: Costs) -> tuple[str, ...]:
    """Keep the candidate with the smallest predicted time for one row."""
    return (min(candidates, key=lambda name: costs.of(name, 1)),)


POLICY = LatePolicy("always-smallest", narrow=fastest)
