"""What serves: gateways with lanes, behind a load balancer, and how their machine differs from the profiles."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadtests.simulator.event_loop import LoopCosts
    from loadtests.simulator.ladder import Ladder


class Balancer(StrEnum):
    """How requests are spread over gateways."""

    ROUND_ROBIN = "round-robin"
    RANDOM = "random"
    TWO_CHOICES = "two-choices"
    """The less loaded, by requests inside, of two gateways taken at random."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What running costs besides the profile.

    ``per_run_s`` is lane time around each run; ``after_s`` passes between the end of a run and the answer's arrival
    and is known to scheduling, as the gateway's own measured hand-over is. Real compute times are ``ratio`` times the
    profile's; with ``is_exact`` each is the profile's median. With ``is_learning`` gateways correct their predictions
    by what they see, as the real one does. Without ``loop`` the event loop takes no time.
    """

    per_run_s: float = 60e-6
    after_s: float = 0.0
    ratio: float = 1.0
    is_exact: bool = False
    is_learning: bool = False
    loop: LoopCosts | None = None

    @property
    def known_after_s(self) -> float:
        """What a gateway knows from the start to pass between a run's end and the answer's arrival."""
        return self.after_s + (self.loop.reply_s if self.loop else 0.0)


@dataclass(frozen=True, slots=True)
class Fleet:
    """``gateways`` processes with ``lanes`` lanes each, all serving all the models."""

    models: tuple[Ladder, ...]
    gateways: int = 1
    lanes: int = 2
    balancer: Balancer = Balancer.ROUND_ROBIN
    machine: Machine = Machine()

    def __post_init__(self) -> None:
        """Refuse an empty fleet."""
        if not self.models or self.gateways < 1 or self.lanes < 1:
            raise ValueError(
                f"fleet: needs at least one model, gateway and lane, got {len(self.models)}, {self.gateways}, "
                f"{self.lanes}"
            )
