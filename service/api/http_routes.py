"""Every route but infer: what the server says about itself, its models and its decisions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

import msgspec

from service.api.hardware import ACCEPT_CH
from service.api.http_artifact import artifact_reply
from service.api.http_message import HttpRequest, Reply, json_reply
from service.api.json_descriptions import (
    config_json,
    index_json,
    metadata_json,
    route_json,
    server_json,
    statistics_json,
    variants_json,
)
from service.api.json_text import read
from service.api.knobs import HEADERS, decode_knobs
from service.api.names import NAME, check_version, shown, split_model_name
from service.api.plane import Plane
from service.domain.errors import InvalidRequest, VariantNotFound

if TYPE_CHECKING:
    from service.domain.inference import Knobs

Handler = Callable[[Plane, HttpRequest], Awaitable[Reply]]
Route = tuple[str, str, Handler]

_QUERY_KNOBS: Final = {
    "budget_ms": "latency_budget_ms",
    "hardware": "client_hardware",
    "min_accuracy": "min_accuracy",
    "variant": "variant",
    "tier": "tier",
}
_MAX_QUERY_FIELDS: Final = 16


class _IndexQuery(msgspec.Struct):
    ready: bool = False


_decode_index = msgspec.json.Decoder(_IndexQuery).decode


class Router:
    """Finds the handlers of a path; a segment written ``{}`` matches any one segment, and literal ones win."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._paths: dict[tuple[str, ...], dict[str, Handler]] = {}
        for method, pattern, handler in routes:
            self._paths.setdefault(tuple(pattern.split("/")), {})[method] = handler

    def find(self, path: str) -> tuple[Mapping[str, Handler], tuple[str, ...]] | None:
        """Return the path's handlers by method and its variable segments, or ``None``."""
        segments = path.split("/")[1:]
        for pattern, handlers in self._paths.items():
            if len(pattern) == len(segments) and all(
                want in ("{}", have) for want, have in zip(pattern, segments, strict=True)
            ):
                captured = [have for want, have in zip(pattern, segments, strict=True) if want == "{}"]
                return handlers, tuple(captured)
        return None


async def _server(plane: Plane, _: HttpRequest) -> Reply:
    return json_reply(server_json(plane.server_info()), headers=[ACCEPT_CH])


async def _live(plane: Plane, _: HttpRequest) -> Reply:
    is_live = plane.is_live()
    return json_reply({"live": is_live, "ready": plane.is_ready()}, 200 if is_live else 503)


async def _ready(plane: Plane, _: HttpRequest) -> Reply:
    is_ready = plane.is_ready()
    return json_reply({"live": plane.is_live(), "ready": is_ready}, 200 if is_ready else 503)


async def _models(plane: Plane, _: HttpRequest) -> Reply:
    names = dict.fromkeys(entry.name for entry in plane.index(ready_only=False))
    return json_reply({"models": list(names)})


async def _model_ready(plane: Plane, request: HttpRequest) -> Reply:
    name, version = _model(request)
    is_ready = plane.is_model_ready(name, version)
    return json_reply({"name": name, "ready": is_ready}, 200 if is_ready else 503)


async def _metadata(plane: Plane, request: HttpRequest) -> Reply:
    return json_reply(metadata_json(plane.model_info(*_model(request))), headers=[ACCEPT_CH])


async def _config(plane: Plane, request: HttpRequest) -> Reply:
    return json_reply(config_json(plane.model_info(*_model(request))))


async def _statistics(plane: Plane, request: HttpRequest) -> Reply:
    name, version = _model(request)
    return json_reply(statistics_json(plane.statistics(split_model_name(name)[0], version)))


async def _all_statistics(plane: Plane, _: HttpRequest) -> Reply:
    return json_reply(statistics_json(plane.statistics("", "")))


async def _index(plane: Plane, request: HttpRequest) -> Reply:
    body = await request.body()
    query = read(_decode_index, body, "the index request") if body.strip() else _IndexQuery()
    return json_reply(index_json(plane.index(ready_only=query.ready)))


async def _variants(plane: Plane, request: HttpRequest) -> Reply:
    model, _ = split_model_name(request.captured[0])
    return json_reply(variants_json(model, plane.variants(model)))


async def _route(plane: Plane, request: HttpRequest) -> Reply:
    model, knobs = _query_knobs(request)
    return json_reply(route_json(plane.explain(model, knobs)), headers=[ACCEPT_CH])


async def _artifact(plane: Plane, request: HttpRequest) -> Reply:
    model, knobs = _query_knobs(request)
    return artifact_reply(plane.artifact(model, knobs.variant or "", knobs), request)


async def _variant_artifact(plane: Plane, request: HttpRequest) -> Reply:
    model, knobs = _query_knobs(request)
    variant = request.captured[1]
    if NAME.fullmatch(variant) is None:
        raise VariantNotFound(f"model '{model}' has no variant {shown(variant)}")
    return artifact_reply(plane.artifact(model, variant, knobs), request)


ROUTES: Final[tuple[Route, ...]] = (
    ("GET", "v2", _server),
    ("GET", "v2/health/live", _live),
    ("GET", "v2/health/ready", _ready),
    ("GET", "v2/models", _models),
    ("GET", "v2/models/stats", _all_statistics),
    ("GET", "v2/models/{}", _metadata),
    ("GET", "v2/models/{}/ready", _model_ready),
    ("GET", "v2/models/{}/config", _config),
    ("GET", "v2/models/{}/stats", _statistics),
    ("GET", "v2/models/{}/variants", _variants),
    ("GET", "v2/models/{}/route", _route),
    ("GET", "v2/models/{}/artifact", _artifact),
    ("GET", "v2/models/{}/variants/{}/artifact", _variant_artifact),
    ("GET", "v2/models/{}/versions/{}", _metadata),
    ("GET", "v2/models/{}/versions/{}/ready", _model_ready),
    ("GET", "v2/models/{}/versions/{}/config", _config),
    ("GET", "v2/models/{}/versions/{}/stats", _statistics),
    ("POST", "v2/repository/index", _index),
)


def _model(request: HttpRequest) -> tuple[str, str]:
    """Return the model's name, perhaps with a pinned variant, and the version, which may be empty."""
    name, *versions = request.captured
    split_model_name(name)
    return name, check_version(versions[0], name) if versions else ""


def _query_knobs(request: HttpRequest) -> tuple[str, Knobs]:
    """Return the model and the knobs of a query such as ``?budget_ms=10&hardware=phone``."""
    model, pinned = split_model_name(request.captured[0])
    try:
        pairs = parse_qsl(
            request.query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_QUERY_FIELDS
        )
    except ValueError as error:
        raise InvalidRequest(f"the query {shown(request.query.decode('latin-1'))} cannot be read: {error}") from None
    parameters = {}
    for name, value in pairs:
        if name not in _QUERY_KNOBS:
            raise InvalidRequest(f"the query has {shown(name)}; allowed are {', '.join(_QUERY_KNOBS)}")
        parameters[_QUERY_KNOBS[name]] = value
    headers = {name: request.headers[name.encode()].decode("latin-1") for name in HEADERS & _names(request)}
    return model, decode_knobs(parameters, headers, pinned=pinned)


def _names(request: HttpRequest) -> set[str]:
    return {name.decode("latin-1") for name in request.headers}
