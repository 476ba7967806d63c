"""The gateway as a BentoML service: ``bentoml serve service.bento:TiergateService``, ``bentoml build``.

The settings are those of ``tiergate serve``, from ``TIERGATE_*`` variables and ``TIERGATE_CONFIG``; address, port and
TLS are BentoML's. Without ``TIERGATE_REPOSITORY`` a built bento serves the model that it contains.

``/v2``, everything under it and ``/metrics`` are the gateway's and go to it directly; all else is BentoML's:
``/livez``, ``/readyz``, ``/healthz``, ``/schema.json``, ``/``. Mounted with ``bentoml.asgi_app`` the gateway would
stand behind BentoML's layers: tracing, a timer for each request that stays for 60 s after the answer, and a second set
of metrics. Measured, they halve the throughput, and the gateway has its own of each.

There is no gRPC here, and no admin listener, because BentoML opens one HTTP port. On SIGTERM BentoML closes that port
and finishes what is inside, so ``drain_grace_s`` has no use; bound the wait with ``--timeout-graceful-shutdown``.
"""

# BentoML types only its outer package: what comes from its SDK is Any.
# mypy: disallow-subclassing-any=False, disallow-untyped-decorators=False

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import bentoml
from _bentoml_sdk import Service  # type: ignore[import-untyped] # see above
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml.exceptions import BentoMLConfigException

from service.bento_store import PREFIX, repository_folder, turn_telemetry_off
from service.domain.errors import BackendFailed
from service.engine.policy_reader import PolicyError
from service.engine.repository import Repository
from service.settings import Settings, SettingsError, read_settings
from service.telemetry.logs import set_up_logs

if TYPE_CHECKING:
    from service.api.asgi import App, Receive, Scope, Send
    from service.app import Gateway

_NAME: Final = "tiergate"
_PATHS: Final = ("/v2", "/metrics")
_BELOW: Final = "/v2/"

turn_telemetry_off()


class GatewayService(Service):
    """A BentoML service that lets the gateway answer the gateway's paths."""

    gateway_app: App | None = None

    def to_asgi(self, is_main: bool = True) -> App:
        """Return the application that BentoML's worker serves; its lifespan starts and ends the gateway."""
        other: App = super().to_asgi(is_main)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            is_ours = scope["type"] == "http" and (scope["path"] in _PATHS or scope["path"].startswith(_BELOW))
            chosen = self.gateway_app if is_ours and self.gateway_app is not None else other
            await chosen(scope, receive, send)

        return app


class _Hooks:
    """Size-tiered variants of each model as one model, over the Open Inference Protocol under /v2."""

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Refuse to start where every worker would fail, once and with the reason, before any is started.

        Raises:
            BentoMLConfigException: A setting cannot be used, or there is to be more than one worker.
        """
        workers = BentoMLContainer.config.services[_NAME].workers.get()
        if workers not in (None, 1):
            raise BentoMLConfigException(f"service '{_NAME}' is to run with {workers} workers; allowed is 1")
        try:
            settings = service_settings()
            _make_gateway(settings)
            Repository(settings.repository).scan()
        except (SettingsError, PolicyError, BackendFailed) as error:
            raise BentoMLConfigException(str(error)) from None

    @bentoml.on_startup
    async def start(self) -> None:
        """Load the models and let the gateway answer, in the event loop of BentoML's worker."""
        settings = service_settings()
        set_up_logs(settings.log_level, settings.log_format)
        self._gateway = _make_gateway(settings)
        await self._gateway.start()
        TiergateService.gateway_app = self._gateway.http_app()

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """End the lanes; BentoML has already answered every request."""
        self._gateway.plane.leave()
        await self._gateway.close()

    async def __is_ready__(self) -> bool:
        """Tell ``/readyz`` what ``/v2/health/ready`` says."""
        return self._gateway.plane.is_ready()


TiergateService: GatewayService = bentoml.service(
    name=_NAME,
    service_class=GatewayService,
    # One event loop owns the data plane, and its lanes already use every core.
    workers=1,
    envs=[{"name": "BENTOML_DO_NOT_TRACK", "value": "True"}],
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)(_Hooks)


def service_settings() -> Settings:
    """Return the settings, with the repository as a folder.

    Raises:
        SettingsError: A setting is wrong, or the model store has not what it names.
    """
    settings = read_settings({})
    repository = settings.repository
    if "repository" not in settings.model_fields_set and TiergateService.bento is not None:
        repository = Path(PREFIX + _model_of(TiergateService.bento))
    return settings.model_copy(update={"repository": repository_folder(repository)})


def _model_of(bento: bentoml.Bento) -> str:
    tags = [str(model.tag) for model in bento.info.all_models]
    if len(tags) != 1:
        raise SettingsError(
            f"bento '{bento.tag}' contains {len(tags)} models ({', '.join(tags) or 'none'}); with other than 1, set "
            "TIERGATE_REPOSITORY to a folder or to bento:NAME"
        )
    return tags[0]


def _make_gateway(settings: Settings) -> Gateway:
    # BentoML puts its workers' prometheus_client into multi-process mode, in which labels cannot be taken away. That is
    # decided when the library is first imported, so the variable goes before the gateway comes.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    from service.app import Gateway  # noqa: PLC0415 - see above

    return Gateway(settings)
