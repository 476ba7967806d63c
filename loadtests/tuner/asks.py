"""What recorded requests asked for, played to candidates as it came: budget, timeout, criticality, hardware class.

A request that named no budget is held to its hardware class's default budget, or else to the promise; in the latter
case candidates may serve it by a shorter default budget of their own. The variants that suit a class are those that the
gateway's routing gives it. A class that the policy file does not know, and a device that none was found for, is none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from loadtests.h2load import LoadError
from loadtests.simulator.workload import Kind, make_workload
from service.domain.errors import InvalidRequest, ModelNotReady
from service.domain.inference import NO_KNOBS, ClientHardware
from service.domain.variants import ModelInfo
from service.policy.routing import Rules, choose_route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from loadtests.simulator.ladder import Ladder
    from loadtests.simulator.workload import Workload
    from service.domain.policy_file import HardwareClass


@dataclass(frozen=True, slots=True, eq=False)
class Asks:
    """One element for each request, (N,); NaN and empty texts mean not said."""

    budget_s: NDArray[np.float64]
    timeout_s: NDArray[np.float64]
    criticality: NDArray[np.int8]
    hardware: NDArray[np.str_]

    def part(self, where: NDArray[np.int64]) -> Asks:
        """Return the requests at these places, in order."""
        return Asks(self.budget_s[where], self.timeout_s[where], self.criticality[where], self.hardware[where])


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds where a request says nothing: budget and timeout in seconds; and the policy file's classes."""

    budget_s: float
    timeout_s: float
    classes: Mapping[str, HardwareClass]


def as_recorded(times_s: NDArray[np.float64], asks: Asks, ladder: Ladder, terms: Terms) -> Workload:
    """Return the workload of these arrivals, each asking for what its record says.

    Raises:
        LoadError: No variant suits a hardware class.
    """
    known = np.where(np.isin(asks.hardware, list(terms.classes)), asks.hardware, "")
    names, place = np.unique(known, return_inverse=True)
    of_class_s = np.array([_class_budget_s(str(name), terms) for name in names])[place]
    named_s = np.where(np.isnan(asks.budget_s), of_class_s, asks.budget_s)
    is_named = ~np.isnan(named_s)
    budget_s = np.where(is_named, named_s, terms.budget_s)
    longest_s = np.maximum(terms.timeout_s, budget_s)
    kinds = [
        Kind(candidates=_suited(str(name), ladder, terms), names_budget=is_own, hardware=str(name))
        for name in names
        for is_own in (False, True)
    ]
    return make_workload(
        times_s,
        budget_s,
        np.where(np.isnan(asks.timeout_s), longest_s, asks.timeout_s),
        criticality=asks.criticality,
        kind=2 * place + is_named,
        kinds=tuple(kinds),
    )


def _class_budget_s(name: str, terms: Terms) -> float:
    budget_s = terms.classes[name].default_budget_s if name else None
    return np.nan if budget_s is None else budget_s


def _suited(name: str, ladder: Ladder, terms: Terms) -> tuple[str, ...]:
    if not name:
        return ()
    knobs = replace(NO_KNOBS, hardware=ClientHardware(class_name=name))
    model = ModelInfo(ladder.name, "", (), (), ladder.max_batch_size, ladder.variants)
    try:
        route = choose_route(model, knobs, Rules(ladder.policy, terms.classes, terms.timeout_s), ladder.names)
    except (InvalidRequest, ModelNotReady) as error:
        raise LoadError(f"recorded hardware class '{name}': {error}") from None
    return tuple(item.name for item in route.candidates)
