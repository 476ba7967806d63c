"""What a load test leaves behind: one JSON document, from which every report and comparison is made."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

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

    @model_validator(mode="after")
    def _has_columns_of_one_length(self) -> Requests:
        lengths = {len(column) for _, column in self if column is not None}
        if len(lengths) != 1 or not lengths.pop():
            raise ValueError("the columns need one length above 0")
        return self


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
