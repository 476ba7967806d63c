"""Who is compared: the gateway's policy in its forms, and the policies beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loadtests.simulator.comparison import POLICIES, Ready
from loadtests.simulator.policy import OURS
from service.domain.policy_file import ModelPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtests.serving.setting import Setting
    from loadtests.simulator.fleet import Fleet
    from loadtests.simulator.policy import Policy
    from loadtests.simulator.workload import Workload

OURS_NAME: Final = "tiergate"
TUNED: Final = "tiergate, tuned"
COST: Final = "tiergate, cost"
PLAIN: Final = "tiergate, no cascades"
FULL: Final = "always-full"
BEST: Final = "best-fixed"
THRESHOLD: Final = "static-threshold"
PUBLISHED: Final = ("slackfit", "infaas", "proteus", THRESHOLD)
CONSTANTS: Final = ("always-full", "always-smallest")


@dataclass(frozen=True, slots=True)
class Contender:
    """A name, the policy file's thresholds that it runs under, and how its policy is made for a workload."""

    name: str
    thresholds: ModelPolicy
    make: Callable[[Workload, Fleet, int], Policy]


def contenders(setting: Setting, load: float) -> list[Contender]:
    """Return everyone who takes part at a load; the tuned form where a policy file was given.

    Ours comes without cascades too; the others know none.
    """
    default, plain = ModelPolicy(), ModelPolicy(cascades=False)
    found = [Contender(name, plain, make) for name, make in POLICIES.items() if name != OURS_NAME]
    found.append(Contender(OURS_NAME, default, Ready(OURS)))
    tuned = setting.tuned(load)
    if tuned is not None:
        found.append(Contender(TUNED, tuned, Ready(OURS)))
    found.append(Contender(COST, default.model_copy(update={"objective": "cost"}), Ready(OURS)))
    if setting.ladder(default).plans:
        found.append(Contender(PLAIN, plain, Ready(OURS)))
    return found


def best_of_ours(names: list[str]) -> str:
    """Return which of our forms stands for the product where accuracy is the objective."""
    return TUNED if TUNED in names else OURS_NAME
