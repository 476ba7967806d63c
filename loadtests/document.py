"""What a load test leaves behind: one JSON document, from which every report and comparison is made."""

from __future__ import annotations

from typing import Any, Literal

from loadtests.figures import Figures, Summary


class Requests(Figures):
    """The measured requests in their order, as columns of one length."""

    scheduled_s: tuple[float, ...]
    latency_s: tuple[float | None, ...]
    kind: tuple[int, ...]
    row: tuple[int, ...]
    status: tuple[int, ...]
    variant: tuple[str, ...]
    on_time: tuple[bool, ...]
    correct: tuple[bool, ...] | None


class Document(Figures):
    """A scenario, where and when it ran, its figures, and every request."""

    schema_version: Literal[1] = 1
    scenario: dict[str, Any]
    rate_hz: float
    capacity_hz: float | None
    lanes: int | None
    inputs: str
    machine: dict[str, Any]
    date: str
    summary: Summary
    requests: Requests
