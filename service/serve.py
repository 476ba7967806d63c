"""Run a gateway: listeners up, signals heard, everything down again in order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.app import Gateway
from service.frontends.grpc import CallLimits, GrpcServer
from service.frontends.http import ConnectionLimits, HttpServer
from service.frontends.pyvoy import PyvoyProcess
from service.frontends.sockets import ListenError, bind, port_of
from service.pyvoy_app import SETTINGS_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from service.settings import Settings


_SWITCH_S: Final = 0.0005
"""Whoever waits for the interpreter, a lane or the event loop, waits no longer than this for the other; the default of
5 ms is half of a budget of 10 ms."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the gateway listens."""

    host: str
    http_port: int
    grpc_port: int
    admin_host: str
    admin_port: int

    def __str__(self) -> str:
        http, grpc = shown(self.host, self.http_port), shown(self.host, self.grpc_port)
        return f"HTTP on {http}, gRPC on {grpc}, admin on {shown(self.admin_host, self.admin_port)}"


def shown(host: str, port: int) -> str:
    """Return an address as URLs write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve(settings: Settings, on_ready: Callable[[Addresses], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends at once.

    ``on_ready`` is called when every listener answers.

    Raises:
        ListenError, MissingFrontend, PolicyError, SettingsError, BackendFailed: The gateway cannot start.
    """
    await (_serve_by_pyvoy if settings.frontend == "pyvoy" else _serve_by_python)(settings, on_ready)


async def _serve_by_pyvoy(settings: Settings, on_ready: Callable[[Addresses], None]) -> None:
    signals = _Signals()
    with bind(settings.admin_host, settings.admin_port, "admin_port") as probe:
        # The port must be known here, and is bound there: Envoy's process inherits no sockets.
        admin_port = port_of(probe)
    inner = settings.model_copy(update={"admin_port": admin_port})
    environment = {SETTINGS_VARIABLE: inner.model_dump_json()}
    if settings.policy is not None or settings.remotes is not None:
        signals.on_hangup(lambda: None)  # the gateway inside looks at the files by itself
    envoy = PyvoyProcess("service.pyvoy_app:app", settings.host, settings.http_port, environment)
    port = await envoy.start()
    try:
        on_ready(Addresses(settings.host, port, port, settings.admin_host, admin_port))
        if not await signals.is_heard_before(envoy.wait()):
            raise ListenError("Envoy ended by itself; what it said is above")
    finally:
        await signals.unless_again(envoy.close())


async def _serve_by_python(settings: Settings, on_ready: Callable[[Addresses], None]) -> None:
    sys.setswitchinterval(_SWITCH_S)
    signals = _Signals()
    gateway = Gateway(settings)
    if settings.policy is not None or settings.remotes is not None or gateway.tls is not None:
        signals.on_hangup(gateway.look_at_files)
    async with contextlib.AsyncExitStack() as stack:
        http_socket = stack.enter_context(bind(settings.host, settings.http_port, "http_port"))
        admin_socket = stack.enter_context(bind(settings.admin_host, settings.admin_port, "admin_port"))
        grpc_socket = stack.enter_context(bind(settings.host, settings.grpc_port, "grpc_port"))
        if await signals.is_heard_before(gateway.start()):
            return
        stack.push_async_callback(gateway.close)
        connections = ConnectionLimits(settings.max_connections, settings.read_timeout_s)
        tls = None if gateway.tls is None else gateway.tls.context("http/1.1")
        http = HttpServer(gateway.http_app(), connections, gateway.note_refusal, gateway.short_way(), tls)
        admin_tls = tls if settings.admin_tls else None
        admin = HttpServer(gateway.admin_app(), connections, gateway.note_refusal, tls=admin_tls)
        calls = CallLimits(settings.max_connections, settings.max_connections, settings.read_timeout_s)
        grpc = GrpcServer(gateway.grpc_app(), calls, gateway.note_refusal, gateway.door)
        await grpc.start(grpc_socket, None if gateway.tls is None else gateway.tls.context("h2"))
        stack.push_async_callback(grpc.close, 1.0)
        for server, listener in ((admin, admin_socket), (http, http_socket)):
            await server.start(listener)
            stack.push_async_callback(server.close)
        on_ready(
            Addresses(
                settings.host, port_of(http_socket), port_of(grpc_socket), settings.admin_host, port_of(admin_socket)
            )
        )
        await signals.wait()
        await signals.unless_again(gateway.drain(grpc.leave))


class _Signals:
    """SIGINT and SIGTERM as something to await."""

    def __init__(self) -> None:
        self._first = asyncio.Event()
        self._again = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._hear)

    def on_hangup(self, act: Callable[[], None]) -> None:
        """Act at every SIGHUP; without this it ends the process, as a closed terminal should."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, act)

    async def wait(self) -> None:
        await self._first.wait()

    async def is_heard_before(self, work: Coroutine[None, None, object]) -> bool:
        """Do the work until a signal comes; tell whether one came before it ended."""
        await _first_of(work, self._first)
        return self._first.is_set()

    async def unless_again(self, work: Coroutine[None, None, object]) -> None:
        """Do the work, or stop doing it when a second signal comes."""
        await _first_of(work, self._again)

    def _hear(self) -> None:
        (self._again if self._first.is_set() else self._first).set()


async def _first_of(work: Coroutine[None, None, object], event: asyncio.Event) -> None:
    tasks = {asyncio.ensure_future(work), asyncio.ensure_future(event.wait())}
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for task in done:
        task.result()  # what failed says so
