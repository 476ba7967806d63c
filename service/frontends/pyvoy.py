"""Run Envoy by pyvoy, with the gateway inside."""

from __future__ import annotations

import importlib.util

from service.frontends.sockets import ListenError, bind


class MissingFrontend(RuntimeError):
    """The frontend's package is not installed."""


class PyvoyProcess:
    """The Envoy process; ``environment`` reaches the application in it."""

    def __init__(self, application: str, host: str, port: int, environment: dict[str, str]) -> None:
        """Configure; ``start`` runs it.

        Raises:
            MissingFrontend: pyvoy is not installed.
        """
        if importlib.util.find_spec("pyvoy") is None:
            raise MissingFrontend(
                "--frontend pyvoy needs the package pyvoy; get it with: pip install 'tiergate[pyvoy]'"
            )
        from pyvoy import PyvoyServer  # noqa: PLC0415 - an optional part

        bind(host, port, "http_port").close()  # Envoy would share a taken port instead of saying so
        self._server = PyvoyServer(
            application, address=host, port=port, lifespan=True, env=environment, stdout=None, stderr=None
        )

    async def start(self) -> int:
        """Start Envoy and return the port.

        Raises:
            ListenError: Envoy or the application in it did not start; the reason is on standard error.
        """
        from pyvoy import StartupError  # noqa: PLC0415 - an optional part

        try:
            await self._server.start()
        except StartupError as error:
            raise ListenError(f"Envoy did not start: {error}") from None
        port: int = self._server.listener_port
        return port

    async def wait(self) -> int | None:
        """Return Envoy's exit status when it ends."""
        status: int | None = await self._server.wait()
        return status

    async def close(self) -> None:
        """End Envoy; the application drains first."""
        await self._server.stop()
