"""What a policy is to the simulator.

Late-binding policies decide when a lane is free, with the same signature as the gateway's own ``choose_run``. Early-
binding ones give every request a lane and a variant on its arrival; each lane then works through its own queue. Both
are made anew for each gateway by ``start``, so that they may keep state, and must be picklable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from service.policy.scheduling import choose_run

if TYPE_CHECKING:
    import numpy as np

    from loadtests.simulator.fleet import Machine
    from service.policy.costs import Costs
    from service.policy.situation import ChooseRun, Waiting


@dataclass(frozen=True, slots=True)
class Site:
    """What a policy knows of the gateway that it starts in; ``costs`` and ``max_rows`` are by model."""

    costs: tuple[Costs, ...]
    max_rows: tuple[int, ...]
    lanes: int
    machine: Machine
    chance: np.random.Generator


Narrow = Callable[[tuple[str, ...], "Costs"], tuple[str, ...]]
"""Which of a request's candidates, most accurate first, a policy uses; at least one."""


def keep_all(candidates: tuple[str, ...], costs: Costs) -> tuple[str, ...]:
    """Use every candidate."""
    del costs
    return candidates


@dataclass(frozen=True, slots=True)
class Always:
    """Starts the same stateless function in every gateway."""

    choose_run: ChooseRun

    def __call__(self, site: Site) -> ChooseRun:
        """Return the function."""
        del site
        return self.choose_run


@dataclass(frozen=True, slots=True)
class LatePolicy:
    """A policy that decides when a lane is free; admission, service order and expiry are the gateway's.

    With ``uses_plans`` the cascades of the models' answer sheets are candidates too.
    """

    name: str
    start: Callable[[Site], ChooseRun] = Always(choose_run)
    narrow: Narrow = keep_all
    uses_plans: bool = False


def late(name: str, choose: ChooseRun) -> LatePolicy:
    """Return a policy from a function like ``service.policy.scheduling.choose_run``."""
    return LatePolicy(name, Always(choose))


OURS = LatePolicy("tiergate", uses_plans=True)
"""The gateway's own policy."""


@dataclass(slots=True)
class LaneView:
    """A lane as an early-binding policy sees it: its queue, and when it is expected to be free of what runs."""

    number: int
    free_s: float
    is_busy: bool
    queue: list[Placed]


@dataclass(slots=True, eq=False)
class Placed:
    """A request that waits at a lane for a variant."""

    index: int
    model: int
    variant: str
    arrived_s: float
    luck: float
    waiting: Waiting


@dataclass(frozen=True, slots=True)
class Arrival:
    """A newcomer: its model by place, what scheduling knows of it, and the moment."""

    model: int
    waiting: Waiting
    now_s: float


class Placer(Protocol):
    """An early-binding policy at work in one gateway."""

    def place(self, arrival: Arrival, lanes: Sequence[LaneView]) -> tuple[int, str] | None:
        """Return the lane's number and the variant; ``None`` refuses the request."""

    def batch(self, lane: LaneView, now_s: float) -> tuple[int, int]:
        """Return how many at the head of a free lane's queue to drop, and how many after these to run together.

        At least one of the two is positive; those run together have one model and one variant.
        """


@dataclass(frozen=True, slots=True)
class EarlyPolicy:
    """A policy that decides on arrival."""

    name: str
    start: Callable[[Site], Placer]
    narrow: Narrow = keep_all


Policy = LatePolicy | EarlyPolicy
