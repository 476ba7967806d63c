"""gRPC by grpcio's asyncio server.

TLS will enter in ``GrpcServer.start``, where ``add_secure_port`` takes the place of ``add_insecure_port``; until then a
proxy in front ends it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc

from service.frontends.sockets import ListenError

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_METADATA_BYTES: Final = 64 * 1024
_MOST_STREAMS: Final = 1024
"""Calls that one connection may have open; more wait in the client."""


@dataclass(frozen=True, slots=True)
class CallLimits:
    """The largest message in bytes, and how many calls may be open over all connections."""

    max_message_bytes: int
    max_calls: int


class GrpcServer:
    """Generic handlers on one port, in the running event loop."""

    def __init__(self, handlers: Sequence[grpc.GenericRpcHandler], limits: CallLimits) -> None:
        """Configure; ``start`` listens."""
        self._server = grpc.aio.server(
            handlers=handlers,
            maximum_concurrent_rpcs=limits.max_calls,
            options=[
                # With it a second instance would silently take half of the first one's connections.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", limits.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", _MOST_METADATA_BYTES),
                ("grpc.max_concurrent_streams", _MOST_STREAMS),
            ],
        )

    async def start(self, host: str, port: int) -> int:
        """Listen and serve; return the port.

        Raises:
            ListenError: The address is taken or not allowed.
        """
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            bound = self._server.add_insecure_port(target)
        except RuntimeError:
            bound = 0
        if not bound:
            raise ListenError(f"cannot listen on {host} port {port}; choose another with --grpc-port")
        await self._server.start()
        return bound

    async def close(self, grace_s: float) -> None:
        """Refuse new calls and return when the last one is answered, or after the grace."""
        await self._server.stop(grace_s)
