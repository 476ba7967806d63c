"""How a sender's first connections are opened, or not."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from loadtests.clients.grpc import GrpcSender
from loadtests.clients.http import HttpSender
from loadtests.generator import open_sender
from loadtests.plan import Address
from tests.loadtests.doubles import Ears, job_for

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def mute_listener() -> Iterator[str]:
    """Listen without ever accepting: the kernel lets one or two connections wait, and answers no other."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


async def test_connections_that_nobody_lets_in_end_the_opening_with_how_many_there_are() -> None:
    with mute_listener() as place:
        sender = HttpSender(job_for(Address(place), "http-json", connections=50), Ears(0))
        with pytest.raises(OSError, match=r"^\d connections are open after 0\.2 s, and the next one is not$"):
            await open_sender(sender, 0.2)
    assert sender.opened < 50


async def test_a_listener_that_never_says_its_settings_ends_the_opening_of_grpc() -> None:
    with mute_listener() as place:
        sender = GrpcSender(job_for(Address("", place), "grpc"), Ears(0))
        with pytest.raises(OSError, match=r"^0 connections are open after 0\.2 s"):
            await open_sender(sender, 0.2)


@pytest.mark.parametrize("protocol", ["http-json", "grpc"])
async def test_nobody_there_is_told_as_such(protocol: str) -> None:
    with socket.socket() as taken:  # bound and not listening: refused, and nobody else's meanwhile
        taken.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        job = job_for(Address(place, place), "grpc" if protocol == "grpc" else "http-json")
        sender = (GrpcSender if protocol == "grpc" else HttpSender)(job, Ears(0))
        with pytest.raises(ConnectionRefusedError):
            await open_sender(sender)
