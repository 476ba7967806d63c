"""Raw sockets to a gateway: what no client library would send."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from tests.integration.gateway_process import GatewayProcess

METHOD = "/inference.GRPCInferenceService/ModelInfer"


def converse(gateway: GatewayProcess, data: bytes) -> bytes:
    """Send raw bytes; return all that comes back until an answer is whole or the connection is closed."""
    answer = b""
    with connect(gateway.http) as connection:
        try:
            connection.sendall(data)
            while b"\r\n\r\n" not in answer:
                piece = connection.recv(65536)
                if not piece:
                    break
                answer += piece
        except (ConnectionResetError, BrokenPipeError):
            pass  # closed on us before all was sent, as it may
    return answer


def connect(where: str) -> socket.socket:
    """Return a connection to an address of the gateway."""
    host, _, port = where.partition(":")
    return socket.create_connection((host, int(port)), timeout=300)


def is_connected(gateway: GatewayProcess, port: int) -> bool:
    """Tell whether the gateway holds a connection from a client's port."""
    connections = psutil.Process(gateway.process.pid).net_connections("tcp")
    return any(tuple(item.raddr)[1:2] == (port,) for item in connections)  # a listener's address is empty


def read_all(connection: socket.socket) -> bytes:
    """Return what is there until the other side's end."""
    pieces = []
    with suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def read_what_came(connection: socket.socket) -> bytes:
    """Return what lies ready; the other side has ended the connection, and its reset may be lost on a full window."""
    connection.setblocking(False)
    pieces = []
    with suppress(ConnectionResetError, BlockingIOError):
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def reset_streams(gateway: GatewayProcess, count: int) -> None:
    """Open streams of an HTTP/2 connection and reset each at once (CVE-2023-44487), until the gateway has enough."""
    settings = http2_frame(4, 0, 0, b"")
    flood = (
        http2_frame(1, 4, 2 * number + 1, call_headers()) + http2_frame(3, 0, 2 * number + 1, struct.pack(">I", 8))
        for number in range(count)
    )
    with connect(gateway.grpc) as connection, suppress(OSError):  # the gateway may hang up at any moment of it
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + b"".join(flood))
        connection.shutdown(socket.SHUT_WR)
        read_all(connection)


def http2_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame of RFC 9113."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def call_headers() -> bytes:
    """Return a call's headers in HPACK (RFC 7541): two of the static table, the others as literals."""
    named = ((b"\x04", METHOD.encode()), (b"\x01", b"x"), (b"\x0f\x10", b"application/grpc"))
    fields = b"".join(name + bytes([len(value)]) + value for name, value in named)
    return b"\x83\x86" + fields + b"\x00\x02te\x08trailers"
