"""The HTTP session of a client that trusts its server with nothing: no redirects, no cookies, no more than expected.

Triton's client sends by a session of aiohttp, follows redirects to wherever they point, keeps cookies, unpacks what is
compressed, and reads whatever comes. Which addresses this server connects to is the operator's word alone, and a server
must not fill this one's memory; so the client is given this in place of its session.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.domain.errors import RemoteBackendFailed

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """An answer that has been read to its end, as Triton's client looks at it."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    async def read(self) -> bytes:
        """Return the body."""
        return self.body


class BoundedSession:
    """Sends by a session of aiohttp, whose answers may have ``most_bytes``; closing it closes the session."""

    def __init__(self, session: Any, most_bytes: int) -> None:  # noqa: ANN401 - aiohttp is the backend's affair
        """Wrap a session."""
        self._session = session
        self._most_bytes = most_bytes

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> WholeAnswer:
        """Get an address.

        Raises:
            RemoteBackendFailed: The answer is compressed, or larger than allowed.
        """
        return await self._answer("GET", url, headers, None)

    async def post(self, url: str, data: bytes, headers: Mapping[str, str] | None = None) -> WholeAnswer:
        """Post to an address; raises as ``get``."""
        return await self._answer("POST", url, headers, data)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def _answer(
        self, method: str, url: str, headers: Mapping[str, str] | None, data: bytes | None
    ) -> WholeAnswer:
        plain = {**(headers or {}), "Accept-Encoding": "identity"}
        async with self._session.request(method, url, data=data, headers=plain, allow_redirects=False) as response:
            self._session.cookie_jar.clear()
            if encoding := response.headers.get("Content-Encoding", ""):
                raise RemoteBackendFailed(f"its answer is compressed: {encoding[:20]!r}, which was not asked for")
            body = bytearray()
            async for part in response.content.iter_any():
                body += part
                if len(body) > self._most_bytes:  # leaving the block closes the connection
                    raise RemoteBackendFailed(f"its answer is larger than {self._most_bytes} bytes")
            return WholeAnswer(response.status, response.headers, bytes(body))
