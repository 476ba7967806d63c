"""The policy in force, read and replaced: routes of the administrative listener.

``GET`` returns it as it was written, or as JSON with every default filled in where the client asks for JSON. The entity
tag is the digest of what was written; the JSON form, being other bytes, has ``-json`` behind it, and ``If-Match`` takes
either.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol

from service.api.http_message import HttpRequest, Reply, json_reply
from service.api.names import shown
from service.domain.errors import InvalidRequest, PayloadTooLarge, UnsupportedMedia

if TYPE_CHECKING:
    from collections.abc import Collection

    from service.api.http_routes import Route
    from service.api.plane import Plane
    from service.domain.policy_text import PolicyText, Replacement

POLICY_PATH: Final = "v2/policy"

_MOST_BYTES: Final = 2**20
_JSON: Final = b"application/json"
_YAMLS: Final = (b"application/yaml", b"application/x-yaml", b"text/yaml", b"text/x-yaml")
_JSON_SUFFIX: Final = "-json"
_TAGS: Final = re.compile(r'\s*(?:W/)?"[^"]*"\s*(?:,\s*(?:W/)?"[^"]*"\s*)*')
_TAG: Final = re.compile(r'(W/)?"([^"]*)"')


class Policies(Protocol):
    """What the routes need of the policy in force."""

    @property
    def text(self) -> PolicyText:
        """The policy in force."""

    async def replace(self, content: bytes, expected: Collection[str] | None = None) -> Replacement:
        """Put another one in force."""
        ...


def policy_routes(policies: Policies) -> tuple[Route, ...]:
    """Return the routes that read and replace a gateway's policy."""

    async def read(_: Plane, request: HttpRequest) -> Reply:
        text = policies.text
        is_json = _prefers_json(request.headers.get(b"accept", b""))
        body = text.policy.model_dump_json().encode() if is_json else text.content
        content_type = _JSON if is_json else _YAMLS[0]
        headers = [
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(body)),
            (b"etag", _tag(text.digest, is_json=is_json)),
            (b"vary", b"accept"),
        ]
        return Reply(200, headers, body)

    async def replace(_: Plane, request: HttpRequest) -> Reply:
        _check_media(request.headers.get(b"content-type"))
        expected = _expected(request.headers.get(b"if-match"))
        content = await request.body()
        if len(content) > _MOST_BYTES:
            raise PayloadTooLarge(f"the policy has {len(content)} bytes; at most {_MOST_BYTES} are taken")
        done = await policies.replace(content, expected)
        report = {
            "digest": done.digest,
            "changes": done.changes,
            "kept_in": "file" if done.is_kept_in_file else "memory",
        }
        return json_reply(report, headers=[(b"etag", _tag(done.digest))])

    return ("GET", POLICY_PATH, read), ("PUT", POLICY_PATH, replace)


def _tag(digest: str, *, is_json: bool = False) -> bytes:
    return f'"{digest}{_JSON_SUFFIX if is_json else ""}"'.encode()


def _expected(if_match: bytes | None) -> tuple[str, ...] | None:
    """Return the digests of an ``If-Match``, ``None`` where any policy may be replaced; weak tags match nothing."""
    if if_match is None or if_match.strip() == b"*":
        return None
    value = if_match.decode("latin-1")
    if _TAGS.fullmatch(value) is None:
        raise InvalidRequest(f"the header If-Match is {shown(value)}; allowed are * and quoted entity tags")
    return tuple(tag.removesuffix(_JSON_SUFFIX) for weak, tag in _TAG.findall(value) if not weak)


def _check_media(content_type: bytes | None) -> None:
    kind = (content_type or _YAMLS[0]).partition(b";")[0].strip().lower()
    if kind not in (_JSON, *_YAMLS):
        raise UnsupportedMedia(
            f"content type {shown(kind.decode('latin-1'))} is not supported; allowed are application/yaml and "
            "application/json (with curl: -H 'Content-Type: application/yaml' --data-binary @FILE)"
        )


def _prefers_json(accept: bytes) -> bool:
    """Tell whether JSON is wanted more than YAML; a client that takes anything gets what was written."""
    weights = dict(map(_weight, accept.decode("latin-1").lower().split(",")))
    json_weight = weights.get(_JSON.decode(), 0.0)
    return json_weight > max((weights.get(name.decode(), 0.0) for name in _YAMLS), default=0.0)


def _weight(part: str) -> tuple[str, float]:
    kind, *parameters = part.replace(" ", "").split(";")
    given = next((item[2:] for item in parameters if item.startswith("q=")), "1")
    try:
        return kind, float(given)
    except ValueError:
        return kind, 0.0
