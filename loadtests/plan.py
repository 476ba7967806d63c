"""What a load test will send: the target, the kinds of request, and when each request goes out.

Everything is decided before the first request is sent: which row, which kind, at which moment. The sending process
receives a ``Job`` and only follows it, so that neither a slow answer nor the choice of a row moves a later request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Protocol = Literal["http-json", "http-binary", "grpc"]
Criticality = Literal["critical", "normal", "sheddable"]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a gateway listens; ``grpc`` and ``admin`` are empty where they are not known. Each is ``host:port``."""

    http: str
    grpc: str = ""
    admin: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """The model under test as the wire names it; ``row_shape`` leaves the batch dimension out."""

    address: Address
    protocol: Protocol
    model: str
    input_name: str
    datatype: str
    row_shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RequestClass:
    """One kind of request of a mix; ``variant`` pins, and empty texts mean not said.

    What does not name its budget is held to it all the same.
    """

    name: str
    budget_s: float
    hardware: str = ""
    criticality: Criticality = "normal"
    variant: str = ""
    names_budget: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """When each request is sent and what it is; the arrays have the same length N and times ascend from 0.

    The first ``warmups`` requests are sent and counted, but left out of every figure.
    """

    times_s: NDArray[np.float64]  # (N,)
    classes: NDArray[np.uint8]  # (N,) index of the request class
    rows: NDArray[np.int32]  # (N,) row of the inputs
    warmups: int = 0

    def __len__(self) -> int:
        return len(self.times_s)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """All that the sending process needs; ``core`` is pinned to, and ``connections`` are opened before the start.

    ``goes_first`` asks for real-time priority, for a generator that shares its core with what it measures.
    """

    target: Target
    inputs: NDArray[Any]  # (rows, *row_shape)
    classes: tuple[RequestClass, ...]
    schedule: Schedule
    timeout_s: float
    core: int | None = None
    connections: int = 16
    goes_first: bool = False


@dataclass(frozen=True, slots=True)
class Mix:
    """The kinds of request and the share of each; shares are positive and need not sum to one."""

    classes: tuple[RequestClass, ...]
    shares: tuple[float, ...] = field(default=())


def draw_schedule(times_s: NDArray[np.float64], mix: Mix, rows: int, seed: int, *, warmups: int = 0) -> Schedule:
    """Give every moment a kind of request and a row of ``rows``, from a seed.

    Rows are dealt from shuffled decks, so that each comes up equally often; kinds are drawn independently.
    """
    rng = np.random.default_rng([seed, 1])
    count = len(times_s)
    shares = np.array(mix.shares or [1.0] * len(mix.classes))
    classes = rng.choice(len(mix.classes), count, p=shares / shares.sum()).astype(np.uint8)
    decks = [rng.permutation(rows) for _ in range(-(-count // rows))]
    dealt = np.concatenate(decks)[:count] if decks else np.empty(0)
    return Schedule(np.asarray(times_s, np.float64), classes, dealt.astype(np.int32), warmups)
