"""The last routing decisions, explained: a route of the administrative listener.

It names the request ids and the knobs of every client, so the public listener refuses it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import parse_qs

import msgspec

from service.api.http_message import HttpRequest, Reply, json_reply
from service.api.names import shown, split_model_name
from service.domain.errors import InvalidRequest
from service.domain.inference import Criticality

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.api.http_routes import Route
    from service.api.plane import Plane
    from service.domain.decisions import CandidateVerdict, Decision
    from service.domain.inference import Knobs

DECISIONS_PATH: Final = "v2/models/{}/decisions"

_MOST: Final = 10_000
_DEFAULT: Final = 10
_AT_ONCE: Final = 8
"""So many are told in half a millisecond."""


class Decided(Protocol):
    """Who remembers decisions."""

    def decisions(self, model: str, last: int) -> Iterable[Decision]:
        """Return the last decisions of a model, the newest first; each is explained when its turn comes."""
        ...


def decision_routes(decided: Decided) -> tuple[Route, ...]:
    """Return the route that explains a gateway's last decisions."""

    async def explain(_: Plane, request: HttpRequest) -> Reply:
        model, _pinned = split_model_name(request.captured[0])
        told = []
        for item in decided.decisions(model, _last(request.query)):
            told.append(msgspec.Raw(msgspec.json.encode(_decision(item))))
            if len(told) % _AT_ONCE == 0:
                await asyncio.sleep(0)  # ten thousand take most of a second: requests go on meanwhile
        return json_reply({"model_name": model, "decisions": told})

    return (("GET", DECISIONS_PATH, explain),)


def _last(query: bytes) -> int:
    """Return how many decisions a query such as ``last=20`` asks for."""
    try:
        fields = parse_qs(query.decode("ascii"), keep_blank_values=True, max_num_fields=2)
    except ValueError as error:
        raise InvalidRequest(f"the query {shown(query.decode('latin-1'))} cannot be read: {error}") from None
    unknown = sorted(set(fields) - {"last"})
    if unknown:
        raise InvalidRequest(f"the query has {shown(unknown[0])}; allowed is last")
    text = fields.get("last", [str(_DEFAULT)])[-1]
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_MOST)) and 1 <= int(text) <= _MOST):
        raise InvalidRequest(f"the query's 'last' is {shown(text)}; allowed is a whole number from 1 to {_MOST}")
    return int(text)


def _decision(item: Decision) -> dict[str, Any]:
    answer = item.answer
    return {
        "time": dt.datetime.fromtimestamp(item.arrived_s, tz=dt.UTC).isoformat(timespec="milliseconds"),
        "request_id": item.request_id,
        "protocol": item.protocol,
        "knobs": _knobs(item.knobs),
        "rows": item.rows,
        "budget_ms": _ms(answer.budget_s),
        "timeout_ms": _ms(item.timeout_s),
        "hardware_class": item.hardware_class,
        "variant": answer.variant,
        "tier": answer.tier,
        "reason": answer.reason.value,
        "cascade": answer.cascade,
        "expected_accuracy": round(answer.expected_accuracy, 6),
        "best_accuracy": round(answer.best_accuracy, 6),
        "queued": item.queued,
        "slack_ms": _ms(item.slack_s),
        "batch_size": answer.batch_size,
        "predicted_ms": _ms(answer.predicted_s),
        "predicted_p99_ms": _ms(answer.claimed_s),
        "queue_ms": _ms(answer.queue_s),
        "compute_ms": _ms(answer.compute_s),
        "total_ms": _ms(answer.total_s),
        "budget_met": answer.budget_met,
        "candidates": [_candidate(candidate) for candidate in item.candidates],
    }


def _candidate(item: CandidateVerdict) -> dict[str, Any]:
    return {
        "name": item.name,
        "accuracy": round(item.accuracy, 6),
        "predicted_compute_ms": _ms(item.compute_s) if item.verdict != "excluded" else None,
        "verdict": item.verdict,
        "why": item.why,
    }


def _knobs(knobs: Knobs) -> dict[str, Any]:
    """Return what the request said, in the words in which it can say it."""
    said = {
        "latency_budget_ms": None if knobs.budget_s is None else _ms(knobs.budget_s),
        "timeout_ms": None if knobs.timeout_s is None else _ms(knobs.timeout_s),
        "min_accuracy": knobs.min_accuracy,
        "variant": knobs.variant,
        "tier": knobs.tier,
        "criticality": None if knobs.criticality is Criticality.NORMAL else knobs.criticality.name.lower(),
    }
    return {name: value for name, value in said.items() if value is not None}


def _ms(duration_s: float) -> float:
    return round(duration_s * 1e3, 3)
