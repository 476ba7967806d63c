"""Listening sockets, bound before anything else starts, so that a taken port is the first thing that is said."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger of socket(7): on, for 0 s


class ListenError(OSError):
    """An address cannot be listened on."""


def bind(host: str, port: int, setting: str) -> socket.socket:
    """Return a bound TCP socket; port 0 takes a free one. ``setting`` names the port's setting in the error.

    Raises:
        ListenError: The address is taken, unknown or not allowed.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ListenError(f"cannot listen on {host}: {error.strerror or error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        # Binding alone does not conflict with another socket that only binds; listening does.
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ListenError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another with --{setting.replace('_', '-')}"
        ) from None
    listener.setblocking(False)
    return listener


def port_of(listener: socket.socket) -> int:
    """Return the port that a socket is bound to."""
    port: int = listener.getsockname()[1]
    return port


def cut(transport: asyncio.WriteTransport) -> None:
    """End a connection with a reset, and with it what its client has not read.

    A plain abort leaves that in the kernel, which goes on offering it to a client that does not read, for minutes.
    """
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
