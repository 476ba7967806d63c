"""Requests that wait at a desk: all that the desk knows of one, without a gateway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from service.policy.situation import Waiting

M = TypeVar("M")


@dataclass(eq=False)
class Request(Generic[M]):
    """A request to a model, whose fastest variant takes ``fastest_s``."""

    model: M
    waiting: Waiting
    fastest_s: float
    criticality: int = 1
    order: tuple[bool, int, float, int] = (False, 0, 0.0, 0)
    is_queued: bool = False
