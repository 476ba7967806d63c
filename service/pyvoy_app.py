"""The gateway inside pyvoy: Envoy carries HTTP and gRPC on one port, and calls this ASGI application.

pyvoy imports a module by name in a process of its own, so the settings come by environment variable, and the gateway
lives from the application's lifespan start to its end.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from service.app import Gateway
from service.frontends.http import ConnectionLimits, HttpServer
from service.frontends.sockets import bind
from service.settings import Settings
from service.telemetry.logs import set_up_logs

if TYPE_CHECKING:
    from service.api.asgi import App, Receive, Scope, Send

SETTINGS_VARIABLE: Final = "TIERGATE_PYVOY_SETTINGS"


class PyvoyApp:
    """Starts the gateway on the server's event loop and hands it every request."""

    def __init__(self) -> None:
        """Wait for the lifespan."""
        self._gateway: Gateway | None = None
        self._admin: HttpServer | None = None
        self._app: App | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle the lifespan or one request."""
        if scope["type"] != "lifespan":
            assert self._app is not None  # noqa: S101 - the server sends requests only after the start
            await self._app(scope, receive, send)
            return
        await receive()
        try:
            await self._start()
        except Exception as error:  # noqa: BLE001 - whatever it is, the server must hear it
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self) -> None:
        settings = Settings.model_validate_json(os.environ[SETTINGS_VARIABLE])
        set_up_logs(settings.log_level, settings.log_format)
        listener = bind(settings.admin_host, settings.admin_port, "admin_port")
        self._gateway = Gateway(settings)
        await self._gateway.start()
        self._app = self._gateway.combined_app()
        limits = ConnectionLimits(settings.max_connections, settings.read_timeout_s)
        self._admin = HttpServer(self._gateway.admin_app(), limits, self._gateway.note_refusal)
        await self._admin.start(listener)

    async def _stop(self) -> None:
        if self._gateway is not None:
            await self._gateway.drain()
            await self._gateway.close()
        if self._admin is not None:
            await self._admin.close()


app = PyvoyApp()
