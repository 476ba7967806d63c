"""Random choice: a candidate at random for the head of the queue, whatever the load.

Source: none needed; Proteus (ASPLOS 2024) and others compare with it. It shows what the ladder's average gives, and
that a benchmark can fail: a policy that is no better than this decides nothing. Admission, service order and expiry
are the gateway's; a request that cannot be on time any more runs on its fastest variant, when nothing else waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtests.simulator.policies.heads import first_timely, run_alone, run_late
from loadtests.simulator.policy import LatePolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtests.simulator.policy import Site
    from service.policy.situation import ChooseRun, Run, Situation, Waiting


def start(site: Site) -> ChooseRun:
    """Return a policy that draws from the site's own chance."""
    chance = site.chance

    def choose(queue: Sequence[Waiting], situation: Situation) -> Run | None:
        place = first_timely(queue, situation)
        if place is None:
            return run_late(queue, situation)
        candidates = queue[place].candidates
        return run_alone(queue, place, candidates[int(chance.integers(len(candidates)))], situation)

    return choose


POLICY = LatePolicy("random", start)
