"""The nouns of scheduling: a queue's entries, everything else that a decision depends on, and the decision.

They are made for every request or decision and changed by nobody; they are not frozen because freezing costs more time
than all else about making one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.policy.arrivals import RecentRate
    from service.policy.costs import Costs


@dataclass(slots=True)
class Waiting:
    """One queued request as scheduling sees it; moments are seconds on the caller's clock.

    ``candidates`` are variants and plans, most accurate first. Requests with equal ``batch_key`` can share a run.
    ``kept_level`` is set where the request has an answer and waits for its cascade's second stage: the level of
    accuracy at which the cascade was chosen. ``aside_s`` is what the way from the end of the run to the answer is
    expected to take of the time until the hard deadline. ``criticality`` is who is served first; lower is.
    """

    due_s: float
    deadline_s: float
    rows: int
    candidates: tuple[str, ...]
    batch_key: object
    may_share: bool = True
    kept_level: float | None = None
    aside_s: float = 0.0
    criticality: int = 1


@dataclass(slots=True)
class Run:
    """What to run: a candidate and the positions in the queue that share the run.

    ``variant`` runs; ``plan`` names the cascade that it is the first stage of. ``is_settled`` says that the one member
    is to be answered with what it has, and nothing runs. Before ``wait_until_s`` nothing runs either: a fuller batch is
    expected by then (``policy.deferral``), and every arrival decides anew.
    """

    variant: str
    members: tuple[int, ...]
    predicted_s: float
    is_late: bool = False
    plan: str = ""
    is_settled: bool = False
    wait_until_s: float = -math.inf


@dataclass(slots=True)
class Situation:
    """Everything a decision depends on besides the queue.

    ``lanes_free_s`` is when each lane is expected to be free; the deciding lane is free now. ``max_rows`` bounds one
    run. ``others_s`` is the work of other models that waits, ``lane_share`` the part of the lanes that this model may
    count on against it (0..1).
    ``price_per_s`` is what a CPU-second must gain in accuracy. ``accuracy_loss`` is how far below the best candidate
    an answer may be if that is cheaper. ``shortage`` weighs the requests that are lost for want of time
    (``policy.price``). ``arrival_rate_hz`` is 0 where no run is to be deferred. ``recent`` tells how fast requests come
    (``policy.arrivals``), ``None`` where none are to be expected.
    """

    costs: Costs
    now_s: float
    lanes_free_s: tuple[float, ...]
    max_rows: int
    others_s: float = 0.0
    lane_share: float = 1.0
    price_per_s: float = 0.0
    accuracy_loss: float = 0.0
    shortage: float = 0.0
    arrival_rate_hz: float = 0.0
    recent: RecentRate | None = None


ChooseRun = Callable[["Sequence[Waiting]", Situation], "Run | None"]
"""What a scheduling policy is: a function from a queue in service order and the situation to the next run."""
