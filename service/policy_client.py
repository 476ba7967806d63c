"""A client of the administrative listener's policy routes, for the command line."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT_S: Final = 30.0
_PATH: Final = "/v2/policy"
_MOST_ANSWER_BYTES: Final = 2**26


class GatewayRefused(RuntimeError):
    """The gateway cannot be reached, or said no; the message has its words."""


@dataclass(frozen=True, slots=True)
class Site:
    """A gateway's admin listener; ``token`` is empty where it asks for none."""

    url: str
    token: str = ""

    @classmethod
    def of(cls, url: str, token_file: Path | None) -> Site:
        """Make one of an address and the file that holds the token.

        Raises:
            GatewayRefused: The address is not one of HTTP, or the file cannot be read.
        """
        if not url.startswith(("http://", "https://")):
            raise GatewayRefused(f"--url is '{url}'; it must start with http:// or https://")
        try:
            token = "" if token_file is None else token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise GatewayRefused(f"--token-file {token_file} cannot be read: {error}") from None
        return cls(url.rstrip("/"), token)


def fetch_policy(site: Site, *, as_json: bool = False) -> tuple[bytes, str]:
    """Return the policy that a gateway goes by, and its digest.

    Raises:
        GatewayRefused: It cannot be reached, or refuses.
    """
    accept = "application/json" if as_json else "application/yaml"
    content, tag = _call(site, "GET", {"Accept": accept}, None)
    return content, tag.strip('"').removesuffix("-json")


def fetch_arrivals(site: Site, model: str) -> bytes:
    """Return the arrivals of a model that a gateway has recorded, as CSV.

    Raises:
        GatewayRefused: It cannot be reached, refuses, or records none.
    """
    content, _ = _call(site, "GET", {}, None, f"/v2/models/{urllib.parse.quote(model, safe='')}/arrivals")
    return content


def push_policy(site: Site, content: bytes, if_match: str | None = None) -> dict[str, Any]:
    """Put a policy in force at a gateway, where ``if_match`` is given only in place of the one with that digest.

    Returns:
        ``digest``, ``changes`` in words, and ``kept_in``: ``file`` or ``memory``.

    Raises:
        GatewayRefused: It cannot be reached, or refuses.
    """
    headers = {"Content-Type": "application/yaml"}
    if if_match is not None:
        headers["If-Match"] = if_match if if_match == "*" else f'"{if_match}"'
    body, _ = _call(site, "PUT", headers, content)
    done: dict[str, Any] = json.loads(body)
    return done


def _call(
    site: Site, method: str, headers: dict[str, str], content: bytes | None, path: str = _PATH
) -> tuple[bytes, str]:
    if site.token:
        headers["Authorization"] = f"Bearer {site.token}"
    address = f"{site.url}{path}"
    request = urllib.request.Request(address, content, headers, method=method)  # noqa: S310 - Site.of checked it
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - the same
            return answer.read(_MOST_ANSWER_BYTES), answer.headers.get("ETag", "")
    except urllib.error.HTTPError as error:
        with error:
            raise GatewayRefused(f"{address} answered {error.code}: {_said(error.read(_MOST_ANSWER_BYTES))}") from None
    except (urllib.error.URLError, OSError) as error:
        raise GatewayRefused(f"{address} cannot be reached: {getattr(error, 'reason', error)}") from None


def _said(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
