"""What only the administrative listener offers, and the public one refuses: loading and unloading models.

The routes of the policy and of the decisions are in modules of their own, because they ask something else than the data
plane; their refusals are here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from service.api.arrival_routes import ARRIVALS_PATH
from service.api.decision_routes import DECISIONS_PATH
from service.api.http_message import HttpRequest, Reply, json_reply
from service.api.names import split_model_name
from service.api.policy_routes import POLICY_PATH
from service.domain.errors import AdminOnly

if TYPE_CHECKING:
    from service.api.http_routes import Route
    from service.api.plane import Plane

REFUSAL: Final = "models are loaded and unloaded through the administrative listener only"
_POLICY_REFUSAL: Final = "the policy is read and replaced through the administrative listener only"
_ARRIVALS_REFUSAL: Final = "recorded arrivals are read through the administrative listener only"
_DECISIONS_REFUSAL: Final = (
    "decisions name other clients' requests: they are read through the administrative listener only"
)

_LOAD: Final = "v2/repository/models/{}/load"
_UNLOAD: Final = "v2/repository/models/{}/unload"


async def _load(plane: Plane, request: HttpRequest) -> Reply:
    model, _ = split_model_name(request.captured[0])
    await plane.load_model(model)
    return json_reply({"name": model, "loaded": True})


async def _unload(plane: Plane, request: HttpRequest) -> Reply:
    model, _ = split_model_name(request.captured[0])
    await plane.unload_model(model)
    return json_reply({"name": model, "loaded": False})


async def _refuse(_: Plane, __: HttpRequest) -> Reply:
    raise AdminOnly(REFUSAL)


async def _refuse_policy(_: Plane, __: HttpRequest) -> Reply:
    raise AdminOnly(_POLICY_REFUSAL)


async def _refuse_arrivals(_: Plane, __: HttpRequest) -> Reply:
    raise AdminOnly(_ARRIVALS_REFUSAL)


async def _refuse_decisions(_: Plane, __: HttpRequest) -> Reply:
    raise AdminOnly(_DECISIONS_REFUSAL)


ADMIN_ROUTES: Final[tuple[Route, ...]] = (("POST", _LOAD, _load), ("POST", _UNLOAD, _unload))
PUBLIC_REFUSALS: Final[tuple[Route, ...]] = (
    ("POST", _LOAD, _refuse),
    ("POST", _UNLOAD, _refuse),
    ("GET", POLICY_PATH, _refuse_policy),
    ("PUT", POLICY_PATH, _refuse_policy),
    ("GET", DECISIONS_PATH, _refuse_decisions),
    ("GET", ARRIVALS_PATH, _refuse_arrivals),
)
