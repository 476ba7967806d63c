"""What is asked: arrivals with their limits, as arrays, one element per request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from service.domain.inference import Criticality

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Kind:
    """What requests of one kind have in common: their model by its place in the fleet, candidates and rows.

    ``candidates`` are variant names, in any order; empty means every variant that routing may choose. Requests that
    name no budget are served by the policy's default budget, and held to their workload's all the same.
    ``hardware`` is the class of their clients, which decides nothing but where they are sent to a real gateway.
    """

    model: int = 0
    candidates: tuple[str, ...] = ()
    rows: int = 1
    names_budget: bool = True
    hardware: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """Requests in order of arrival; every array has shape (N,).

    ``budget_s`` and ``timeout_s`` are seconds from arrival, the soft and the hard limit. ``kind`` indexes ``kinds``,
    ``row`` the rows of the model's answer sheet.
    """

    arrival_s: NDArray[np.float64]
    budget_s: NDArray[np.float64]
    timeout_s: NDArray[np.float64]
    criticality: NDArray[np.int8]
    kind: NDArray[np.int16]
    row: NDArray[np.int32]
    kinds: tuple[Kind, ...] = (Kind(),)

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit each other."""
        for name in ("budget_s", "timeout_s", "criticality", "kind", "row"):
            if getattr(self, name).shape != self.arrival_s.shape:
                raise ValueError(f"workload: {name} has shape {getattr(self, name).shape}, not {self.arrival_s.shape}")
        if len(self) and np.any(np.diff(self.arrival_s) < 0):
            raise ValueError("workload: arrival_s must ascend")
        if len(self) and not 0 <= int(self.kind.min()) <= int(self.kind.max()) < len(self.kinds):
            raise ValueError(f"workload: kind must be within 0..{len(self.kinds) - 1}")
        if len(self) and not 0 <= int(self.criticality.min()) <= int(self.criticality.max()) < len(Criticality):
            raise ValueError(f"workload: criticality must be within 0..{len(Criticality) - 1}")

    def __len__(self) -> int:
        return len(self.arrival_s)

    def part(self, where: NDArray[np.int64]) -> Workload:
        """Return the requests at these places, in order."""
        return Workload(
            self.arrival_s[where],
            self.budget_s[where],
            self.timeout_s[where],
            self.criticality[where],
            self.kind[where],
            self.row[where],
            self.kinds,
        )


def make_workload(
    arrival_s: ArrayLike,
    budget_s: ArrayLike = 0.1,
    timeout_s: ArrayLike = 60.0,
    *,
    criticality: ArrayLike = Criticality.NORMAL,
    kind: ArrayLike = 0,
    row: ArrayLike | None = None,
    kinds: tuple[Kind, ...] = (Kind(),),
) -> Workload:
    """Return a workload; single values hold for every request, ``row`` is 0, 1, 2, ... where it is not given."""
    arrivals = np.sort(np.asarray(arrival_s, np.float64))

    def spread(value: ArrayLike, dtype: type[_T]) -> NDArray[_T]:
        return np.ascontiguousarray(np.broadcast_to(np.asarray(value, dtype), arrivals.shape), dtype)

    return Workload(
        arrivals,
        spread(budget_s, np.float64),
        spread(timeout_s, np.float64),
        spread(criticality, np.int8),
        spread(kind, np.int16),
        spread(np.arange(len(arrivals)) if row is None else row, np.int32),
        kinds,
    )


def model_of(workload: Workload) -> NDArray[np.int64]:
    """Return each request's model, (N,)."""
    models: NDArray[np.int64] = np.array([kind.model for kind in workload.kinds])[workload.kind]
    return models
