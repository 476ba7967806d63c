"""Requests into one batch, and the batch's outputs back to each request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from service.domain.errors import BackendFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from service.engine.ticket import Ticket


def join_inputs(tickets: Sequence[Ticket]) -> dict[str, NDArray[Any]]:
    """Return the inputs by name, rows of all tickets one after the other; a single ticket's without a copy."""
    if len(tickets) == 1:
        return {tensor.name: tensor.data for tensor in tickets[0].request.inputs}
    columns: dict[str, list[NDArray[Any]]] = {}
    for ticket in tickets:
        for tensor in ticket.request.inputs:
            columns.setdefault(tensor.name, []).append(tensor.data)
    return {name: np.concatenate(parts) for name, parts in columns.items()}  # (rows, ...)


def split_outputs(outputs: tuple[NDArray[Any], ...], tickets: Sequence[Ticket]) -> list[tuple[NDArray[Any], ...]]:
    """Return each ticket's rows of every output.

    Raises:
        BackendFailed: An output does not have the batch's rows.
    """
    rows = [ticket.waiting.rows for ticket in tickets]
    total = sum(rows)
    for output in outputs:
        if output.ndim == 0 or output.shape[0] != total:
            raise BackendFailed(f"an output has shape {list(output.shape)} for a batch of {total} rows")
    if len(tickets) == 1:
        return [outputs]
    parts, start = [], 0
    for count in rows:
        parts.append(tuple(output[start : start + count] for output in outputs))
        start += count
    return parts
