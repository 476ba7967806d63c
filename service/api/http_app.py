"""The HTTP side as a raw ASGI application: no framework between the server and the codec.

An infer request takes the short way through ``_infer``; everything else goes through the route table. While an answer
is awaited, one small task listens for the client leaving and cancels the wait, so that queued work is not done.
"""

from __future__ import annotations

import contextlib
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from service.api.admin_routes import ADMIN_ROUTES, PUBLIC_REFUSALS
from service.api.answers import Story
from service.api.departures import ClientLeft, unless_left
from service.api.http_body import check_content_type, compress, json_length, read_body
from service.api.http_codec import RequestHead, decode_request, encode_response
from service.api.http_errors import error_reply, method_not_allowed
from service.api.http_message import JSON_TYPE, HttpRequest, Reply, send_reply
from service.api.http_routes import ROUTES, Router
from service.api.knobs import HEADERS
from service.api.names import check_request_id, check_version, new_request_id, shown, split_model_name
from service.api.plane import Refusal, ignore_refusal
from service.api.tracing import RESPONSE_HEADER, ending
from service.domain.errors import NotFound, TiergateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from service.api.asgi import Receive, Scope, Send
    from service.api.http_message import Headers
    from service.api.http_routes import Route
    from service.api.plane import OnRefused, Plane, Stage
    from service.domain.inference import InferenceRequest, InferenceResponse
    from service.domain.trace import Trace, Tracing

DEFAULT_MAX_BODY_BYTES: Final = 64 << 20

_MODELS: Final = "/v2/models/"
_INFER: Final = "/infer"
_BINARY_TYPE: Final = (b"content-type", b"application/octet-stream")
_KNOB_HEADERS: Final = {name.encode(): name for name in HEADERS}


class HttpApp:
    """An ASGI 3 application for the HTTP form of the protocol.

    Args:
        plane: What answers.
        max_body_bytes: The largest body taken, counted after decompression.
        admin: Whether models can be loaded and unloaded here; a public listener says no.
        on_refused: Called once for every request that is refused or fails.
        more: Routes beside the protocol's.
        tracing: Decides which requests are traced; ``None`` traces none.
    """

    def __init__(
        self,
        plane: Plane,
        *,
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
        admin: bool = False,
        on_refused: OnRefused = ignore_refusal,
        more: Iterable[Route] = (),
        tracing: Tracing | None = None,
    ) -> None:
        self._plane = plane
        self._max_body_bytes = max_body_bytes
        self._on_refused = on_refused
        self._tracing = tracing
        self._router = Router((*ROUTES, *(ADMIN_ROUTES if admin else PUBLIC_REFUSALS), *more))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises:
            TypeError: The scope is not HTTP; the server's lifespan is handled by whoever wraps this.
        """
        if scope["type"] != "http":
            raise TypeError(f"the HTTP application was called with scope '{scope['type']}'; allowed is 'http'")
        headers: dict[bytes, bytes] = dict(scope["headers"])
        path = _path(scope)
        is_infer = _is_infer(path, scope["method"])
        request_id = ""
        try:
            request_id = _request_id(headers)
            if is_infer:
                reply = await self._infer(_request_head(path, headers, request_id), headers, receive)
            else:
                reply = await self._route(path, scope, headers, receive)
        except ClientLeft:
            return
        except Exception as error:  # noqa: BLE001 - the last line: every failure becomes an answer
            request_id = request_id or new_request_id()
            reply = self._refuse(error, request_id, "decode" if is_infer else "route")
        await self._send(send, reply, request_id, with_body=scope["method"] != "HEAD")

    async def answer(self, path: str, headers: dict[bytes, bytes], body: bytes) -> Reply:
        """Answer an infer request that is here as a whole, for servers that can do without ASGI.

        Args:
            path: The path of an infer request, decoded.
            headers: Lower-case names and values; the body has no content coding.
            body: The body, within the limit.
        """
        request_id = ""
        try:
            request_id = _request_id(headers)
            head = _request_head(path, headers, request_id)
            check_content_type(headers)
            return await self._answer(head, headers, body)
        except Exception as error:  # noqa: BLE001 - the last line: every failure becomes an answer
            return self._refuse(error, request_id or new_request_id(), "decode")

    async def _send(self, send: Send, reply: Reply, request_id: str, *, with_body: bool) -> None:
        # ASGI servers raise an OSError from ``send`` when the client is gone: there is nobody to answer then.
        with contextlib.suppress(OSError):
            try:
                await send_reply(send, reply, with_body=with_body)
            except TiergateError as error:
                # The body's source failed under way. Leaving the answer unfinished makes the server cut it off.
                self._on_refused(Refusal("http", request_id, error))

    async def _infer(self, head: RequestHead, headers: Mapping[bytes, bytes], receive: Receive) -> Reply:
        check_content_type(headers)
        body = await read_body(receive, headers, self._max_body_bytes)
        return await unless_left(self._answer(head, headers, body), receive)

    async def _answer(self, head: RequestHead, headers: Mapping[bytes, bytes], body: bytes) -> Reply:
        if self._tracing is not None:
            trace = _begin(self._tracing, headers)
            if trace is not None:
                return await self._answer_traced(trace, head, headers, body)
        request = decode_request(body, json_length(headers), head)
        try:
            return _infer_reply(request, await self._plane.infer(request), headers)
        except Exception as error:  # noqa: BLE001 - caught here for the id that the body gave
            return self._refuse(error, request.id, "infer")

    async def _answer_traced(
        self, trace: Trace, head: RequestHead, headers: Mapping[bytes, bytes], body: bytes
    ) -> Reply:
        request: InferenceRequest | None = None
        try:
            with ending(trace):
                request = decode_request(body, json_length(headers), head)
                trace.decoded(request)
                response = await self._plane.infer(request)
                trace.answered(response.answer)
                reply = _infer_reply(request, response, headers)
        except Exception as error:  # noqa: BLE001 - as without a trace
            reply = self._refuse(error, request.id if request else head.id, "infer" if request else "decode")
        reply.headers.append((RESPONSE_HEADER.encode(), trace.response_header.encode()))
        return reply

    async def _route(self, path: str, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> Reply:
        method: str = scope["method"]
        if _is_infer(path, "POST"):
            raise method_not_allowed(method, ["POST"])
        found = self._router.find(path)
        if found is None:
            raise NotFound(f"no route {shown(path)}; the protocol's paths start at /v2")
        handlers, captured = found
        handler = handlers.get("GET" if method == "HEAD" else method)
        if handler is None:
            raise method_not_allowed(method, {*handlers, *(["HEAD"] if "GET" in handlers else [])})

        async def body() -> bytes:
            return await read_body(receive, headers, self._max_body_bytes)

        request = HttpRequest(method, headers, scope.get("query_string", b""), body, captured)
        return await handler(self._plane, request)

    def _refuse(self, error: Exception, request_id: str, stage: Stage) -> Reply:
        self._on_refused(Refusal("http", request_id, error, stage))
        return error_reply(error, request_id)


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root) else path


def _is_infer(path: str, method: str) -> bool:
    if method != "POST" or not path.endswith(_INFER) or not path.startswith(_MODELS):
        return False
    return len(path) > len(_MODELS) + len(_INFER)


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    said = headers.get(b"x-request-id")
    return check_request_id(said.decode("latin-1")) if said else new_request_id()


def _request_head(path: str, headers: Mapping[bytes, bytes], request_id: str) -> RequestHead:
    """Return what ``/v2/models/{m}[/versions/{v}]/infer`` and the headers say."""
    model, version, pinned = _named(path)
    if _KNOB_HEADERS.keys().isdisjoint(headers):
        return RequestHead(model, request_id, version, pinned)
    knob_headers = {name: headers[key].decode("latin-1") for key, name in _KNOB_HEADERS.items() if key in headers}
    return RequestHead(model, request_id, version, pinned, knob_headers)


@lru_cache(maxsize=1024)
def _named(path: str) -> tuple[str, str, str | None]:
    """Return the model, the version and the pinned variant that an infer request's path names."""
    name, versions, version = path[len(_MODELS) : -len(_INFER)].partition("/versions/")
    model, pinned = split_model_name(name)
    if versions and not version:
        raise NotFound(f"no route {shown(path)}; a version is missing after /versions/")
    return model, check_version(version, model), pinned


def _begin(tracing: Tracing, headers: Mapping[bytes, bytes]) -> Trace | None:
    parent = headers.get(b"traceparent")
    if parent is None:
        return tracing.begin("http", None, None)
    return tracing.begin("http", parent.decode("latin-1"), headers.get(b"tracestate", b"").decode("latin-1"))


def _infer_reply(request: InferenceRequest, response: InferenceResponse, headers: Mapping[bytes, bytes]) -> Reply:
    story = Story(response.answer)
    body, length = encode_response(request, response, story.json())
    lines: Headers = [JSON_TYPE if length is None else _BINARY_TYPE]
    if length is not None:
        lines.append((b"inference-header-content-length", b"%d" % length))
    accept = headers.get(b"accept-encoding")
    if accept is not None:
        body, coding = compress(body, accept)
        if coding is not None:
            lines += [(b"content-encoding", coding), (b"vary", b"accept-encoding")]
    lines.append((b"content-length", b"%d" % len(body)))
    return Reply(200, lines, body, head=story.head())
