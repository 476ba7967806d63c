"""Listening sockets, bound before anything else starts, so that a taken port is the first thing that is said."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger of socket(7): on, for 0 s

_KEEP_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)
# struct tcp_info of linux/tcp.h: the time since data came, which the kernel knows to a tick.
_LAST_DATA_MS: Final = struct.Struct("I")
_LAST_DATA_AT: Final = 52
_TICK_S: Final = 0.004
# The states of tcp_info, its first byte, of a connection that the other side has reset, or has ended.
_LEFT: Final = frozenset({b"\x07", b"\x08"})


class ListenError(OSError):
    """An address cannot be listened on."""


def bind(host: str, port: int, setting: str) -> socket.socket:
    """Return a bound TCP socket; port 0 takes a free one. ``setting`` names the port's setting in the error.

    Raises:
        ListenError: The address is taken, unknown or not allowed.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        # The protocol is named, because asyncio sets TCP_NODELAY only then: without it the second of two writes waits
        # until the client has acknowledged the first, 40 ms later.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise ListenError(f"cannot listen on {host}: {error.strerror or error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for level, option, value in _KEEP_ALIVE:  # inherited by every connection
            listener.setsockopt(level, option, value)
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
        with contextlib.suppress(OSError, ValueError):  # it is closed already; uvloop says so by a ValueError
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()


def unread_s(transport: asyncio.BaseTransport) -> float:
    """Return for how many seconds at least the last bytes that came have lain in the kernel; it counts in ticks."""
    connection = transport.get_extra_info("socket")
    if connection is None:
        return 0.0
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_MS.size + _LAST_DATA_AT)
    unread_ms: int = _LAST_DATA_MS.unpack_from(info, _LAST_DATA_AT)[0]
    return max(0.0, unread_ms / 1e3 - _TICK_S)


def has_left(transport: asyncio.BaseTransport) -> bool:
    """Tell, from any thread, whether a connection has ended, at least as the kernel knows: nobody can be answered."""
    try:
        # The event loop may have read the client's end, and have others to serve before it tells of that.
        if transport.is_closing():
            return True
        connection = transport.get_extra_info("socket")
        # This does not let go of the interpreter, as waiting for the socket by ``select`` would, even for no time.
        return connection is not None and connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) in _LEFT
    except (AttributeError, OSError, ValueError, RuntimeError):  # closed just now; by the first, asyncio's TLS says so
        return True
