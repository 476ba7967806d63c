"""Drift over HTTP: what is known of a model's variants, labels that come late, and what a person may do by hand.

Reading is open to all, as the list of variants is. Labels and actions are the administrative listener's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from service.api.http_message import HttpRequest, Reply, json_reply
from service.api.json_text import check_no_duplicate_keys, read
from service.api.names import NAME, check_request_id, shown, split_model_name
from service.domain.errors import AdminOnly, InvalidRequest, PayloadTooLarge, VariantNotFound
from service.domain.verdicts import ACTIONS, Label

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from service.api.http_routes import Route
    from service.api.plane import Plane
    from service.domain.verdicts import Action, FeedbackResult, ModelDrift

_REPORT: Final = "v2/models/{}/drift"
_FEEDBACK: Final = "v2/models/{}/feedback"
_ACT: Final = "v2/models/{}/variants/{}/drift"
_REFUSAL: Final = "labels and actions on variants are taken by the administrative listener only"
_MOST_BYTES: Final = 4 * 2**20
_MOST_LABELS: Final = 8_000
_MOST_WHY: Final = 200
_MOST_IDS: Final = 100
_KEYS: Final = 2
"""Of a label."""


class Drifts(Protocol):
    """What the routes need of the watch over drift; each call may raise the errors of ``service.domain.errors``."""

    def report(self, model: str) -> Future[ModelDrift]:
        """Tell what is known."""
        ...

    def take_labels(self, model: str, labels: Sequence[Label]) -> Future[FeedbackResult]:
        """Join labels with kept predictions."""
        ...

    def act(self, model: str, variant: str, action: Action, who: str) -> Future[ModelDrift]:
        """Do what a person wants."""
        ...


_Number = int | float
_Box = list[str | _Number]
_Row = str | _Number | list[_Number | _Box]


class _Label(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    label: str | _Number | list[_Row]


class _Labels(msgspec.Struct, forbid_unknown_fields=True):
    labels: list[_Label]


class _Act(msgspec.Struct, forbid_unknown_fields=True):
    action: str
    why: str = ""


_decode_labels: Final = msgspec.json.Decoder(_Labels).decode
_decode_act: Final = msgspec.json.Decoder(_Act).decode


def drift_routes(drift: Drifts, *, admin: bool) -> tuple[Route, ...]:
    """Return the routes of a listener; one that is not the administrators' refuses all but reading."""

    async def report(_: Plane, request: HttpRequest) -> Reply:
        return json_reply(await asyncio.wrap_future(drift.report(_model(request))))

    async def feedback(_: Plane, request: HttpRequest) -> Reply:
        labels = _labels(await _body(request))
        done = await asyncio.wrap_future(drift.take_labels(_model(request), labels))
        return json_reply(
            {
                "joined": done.joined,
                "unknown": len(done.unknown),
                "unfit": len(done.unfit),
                "unknown_ids": done.unknown[:_MOST_IDS],
                "unfit_ids": done.unfit[:_MOST_IDS],
            }
        )

    async def act(_: Plane, request: HttpRequest) -> Reply:
        model, variant = _model(request), request.captured[1]
        if NAME.fullmatch(variant) is None:
            raise VariantNotFound(f"model '{model}' has no variant {shown(variant)}")
        wanted = read(_decode_act, await _body(request), "the action")
        found = next((item for item in ACTIONS if item == wanted.action), None)
        if found is None:
            raise InvalidRequest(f"action is {shown(wanted.action)}; allowed are {', '.join(ACTIONS)}")
        who = f"hand: {shown(wanted.why[:_MOST_WHY])}" if wanted.why else "hand"
        return json_reply(await asyncio.wrap_future(drift.act(model, variant, found, who)))

    async def refuse(_: Plane, __: HttpRequest) -> Reply:
        raise AdminOnly(_REFUSAL)

    return (
        ("GET", _REPORT, report),
        ("POST", _FEEDBACK, feedback if admin else refuse),
        ("POST", _ACT, act if admin else refuse),
    )


def _model(request: HttpRequest) -> str:
    return split_model_name(request.captured[0])[0]


async def _body(request: HttpRequest) -> bytes:
    body = await request.body()
    if len(body) > _MOST_BYTES:
        raise PayloadTooLarge(f"the body has {len(body)} bytes; at most {_MOST_BYTES} are taken")
    return body


def _labels(body: bytes) -> list[Label]:
    items = read(_decode_labels, body, "the labels").labels
    if len(items) > _MOST_LABELS:
        raise InvalidRequest(f"there are {len(items)} labels; at most {_MOST_LABELS} are taken at once")
    if body.count(b":") > 1 + _KEYS * len(items):  # in an id, or a key that stands twice
        check_no_duplicate_keys(body)
    return [
        Label(check_request_id(item.id), tuple(item.label) if isinstance(item.label, list) else (item.label,))
        for item in items
    ]
