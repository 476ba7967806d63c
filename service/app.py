"""The composition root: every part of the gateway is made and wired here, and nowhere else."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import service
from service.api.arrival_routes import arrival_routes
from service.api.decision_routes import decision_routes
from service.api.drift_routes import drift_routes
from service.api.grpc_asgi import CombinedApp, GrpcAsgiApp
from service.api.http_app import HttpApp
from service.api.policy_routes import policy_routes
from service.bento_store import repository_folder
from service.engine.catalog import Identity, Parts
from service.engine.daemon_work import in_daemon_thread
from service.engine.dataplane import DataPlane
from service.engine.decisions import Decisions
from service.engine.dispatcher import Dispatcher
from service.engine.drift.drift import Drift
from service.engine.drift.keeping import KeepingSettings
from service.engine.foresight import Foresight
from service.engine.holding import Holding
from service.engine.lanes import Lanes
from service.engine.node import Node
from service.engine.policy_in_force import PolicyInForce
from service.engine.policy_reader import read_policy
from service.engine.registry import Registry
from service.engine.remotes_in_force import RemotesInForce
from service.engine.remotes_reader import RemotesError, read_certificates, read_remotes
from service.engine.repository import Repository
from service.engine.statistics import StatisticsObserver
from service.engine.uses import Uses
from service.frontends.door import Door
from service.frontends.short_way import ShortWay
from service.frontends.tls import Tls, TlsError, TlsFiles
from service.frontends.wrappers import TokenGuard, WithMetrics
from service.observing import Observing
from service.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.api.asgi import App
    from service.domain.observer import Observer
    from service.engine.remotes import Remotes
    from service.settings import Settings
    from service.telemetry.metrics import Metrics


_LEAVE_BEHIND_S: Final = 1.0
"""Time that lanes have to end after the drain; a run that takes longer is nobody's any more."""


class Gateway:
    """One gateway: the data plane, and the applications that translate for it.

    Make it, ``start`` it on the event loop that will serve it, and ``close`` it there.
    """

    def __init__(self, settings: Settings, isa: tuple[str, ...] | None = None) -> None:
        """Wire the parts; nothing is loaded and no thread runs yet.

        ``isa`` are the processor's instruction sets, found out where they are not given.

        Raises:
            PolicyError, SettingsError: The policy file, the token file or the folder for arrivals cannot be used.
        """
        policy = read_policy(settings.policy)
        self._settings = settings
        self._token = read_token(settings)
        statistics, uses = StatisticsObserver(), Uses()
        budget_bytes = settings.memory_budget_bytes
        heard = (statistics,) if budget_bytes is None else (statistics, uses)  # only evictions go by the uses
        self._observing = observing = Observing(settings, policy, lambda: self.policies.text.policy, heard)
        self.metrics, observer, self.note_refusal = observing.metrics, observing.observer, observing.note_refusal
        cores = _cores(settings)
        self._dispatcher = dispatcher = Dispatcher(
            len(cores), observer, time.perf_counter, settings.inline_compute_ms / 1e3
        )
        self._remotes = _remotes(settings, dispatcher, observer)
        self.lanes = Lanes(dispatcher, cores, observer)
        self.holding = Holding(observer, budget_bytes, uses=uses, parking=dispatcher.parking)
        node = _node(settings, isa, self._remotes)
        repository = Repository(repository_folder(settings.repository), node)
        self.registry = Registry(
            repository, policy.policy, observer, settings.max_timeout_s, self.holding, self._remotes
        )
        self.policies = PolicyInForce(policy, settings.policy, self.registry, dispatcher, observer)
        observing.regions.follow()
        self.drift = Drift(self.registry, dispatcher, _keeping(settings), time.time)
        self.tls = _tls(settings, self.metrics)
        self._remotes_in_force: RemotesInForce | None = None
        if self._remotes is not None and settings.remotes is not None:
            self._remotes_in_force = RemotesInForce(settings.remotes, self._remotes, self.registry, observer)
        self._watching: asyncio.Task[None] | None = None
        self._watching_lanes: asyncio.Task[None] | None = None
        self._watching_tls: asyncio.Task[None] | None = None
        self._watching_remotes: asyncio.Task[None] | None = None
        identity = Identity("tiergate", service.__version__, settings.required_models)
        parts = Parts(identity, self.registry, dispatcher, statistics, Decisions(settings.decisions_kept))
        self.plane = DataPlane(parts, self.lanes, observer)
        self.door = Door(
            dispatcher.loop_turns,
            time.perf_counter,
            self.registry.default_budget_s,
            observing.note_turned_away,
            Foresight(dispatcher, self.registry, parts.handover),
        )
        self._public = self._public_app()
        self.metrics.watch(
            depths=dispatcher.depths,
            inflight=lambda: self.plane.inflight,
            busy_s=lambda: [lane.busy_s for lane in dispatcher.desk.lanes],
        )
        self.metrics.watch_door(self.door.report)
        self.metrics.watch_drift(lambda: self.drift.reports)
        servers, remotes = (list, list) if self._remotes is None else (self._remotes.endpoints, self._remotes.states)
        self.metrics.watch_endpoints(servers, remotes, self._is_remotes_file_refused)
        self.metrics.policy.watch(lambda: self.policies.is_file_refused)

    async def start(self) -> None:
        """Load the models and start the lanes.

        Raises:
            BackendFailed: The repository cannot be read.
        """
        if self._remotes is not None:
            self._remotes.start(self.registry.all)
        await in_daemon_thread(self.registry.load_all)
        # What is loaded now lives until the end: looking through it again and again would only stall requests.
        gc.collect()
        gc.freeze()
        self.holding.start()
        await self.drift.start()
        self._observing.start()
        self.lanes.start()
        self._watching = asyncio.create_task(self.policies.watch())
        self._watching_lanes = asyncio.create_task(self.lanes.watch())
        if self.tls is not None:
            self._watching_tls = asyncio.create_task(self.tls.watch())
        if self._remotes_in_force is not None:
            self._watching_remotes = asyncio.create_task(self._remotes_in_force.watch())

    def look_at_files(self) -> None:
        """Read policy and remotes file now, and the certificate if it changed, without waiting for the next look."""
        self.policies.ask()
        if self._remotes_in_force is not None:
            self._remotes_in_force.ask()
        if self.tls is not None:
            self.tls.look()

    async def drain(self, before_refusing: Callable[[], None] = lambda: None) -> None:
        """Stop being ready, answer on through the grace window, then refuse newcomers and finish what is inside."""
        self.plane.leave()
        try:
            await asyncio.sleep(self._settings.drain_grace_s)
            before_refusing()
            self._refuse_new()
            async with asyncio.timeout(self._settings.drain_timeout_s):
                await self.plane.wait_until_idle()
        except TimeoutError:
            pass  # what is still inside gets its refusal below
        finally:
            self._refuse_new()
            self._dispatcher.abandon()

    def _refuse_new(self) -> None:
        self.plane.refuse_new()
        self.door.let_all_in()

    async def close(self) -> None:
        """End the lanes; what still waits is refused."""
        for task in (self._watching, self._watching_lanes, self._watching_tls, self._watching_remotes):
            if task is not None:
                task.cancel()
        self.holding.close()
        await asyncio.to_thread(self.drift.close, _LEAVE_BEHIND_S)
        await self._observing.close_recording()
        if self._remotes is not None:
            await asyncio.to_thread(self._remotes.close)
        await asyncio.to_thread(self.lanes.close, _LEAVE_BEHIND_S)
        await self._observing.close_tracing(_LEAVE_BEHIND_S)

    def _is_remotes_file_refused(self) -> bool:
        return self._remotes_in_force is not None and self._remotes_in_force.is_file_refused

    def http_app(self) -> App:
        """Return the public ASGI application: the protocol, and the metrics."""
        return WithMetrics(self._public, self.metrics.render)

    def _public_app(self) -> HttpApp:
        return HttpApp(
            self.plane,
            max_body_bytes=self._settings.max_body_bytes,
            on_refused=self.note_refusal,
            more=drift_routes(self.drift, admin=False),
            tracing=self._observing.tracing,
        )

    def short_way(self) -> ShortWay:
        """Return what answers plain infer requests without ASGI."""
        return ShortWay(self._public.answer, self._settings.max_body_bytes, self.door)

    def combined_app(self) -> App:
        """Return one public ASGI application for HTTP and gRPC, for servers that carry both on one port."""
        return WithMetrics(CombinedApp(self._public_app(), self.grpc_app()), self.metrics.render)

    def admin_app(self) -> App:
        """Return the administrators' ASGI application: the same, and models and policy to change, behind the token."""
        admin = HttpApp(
            self.plane,
            max_body_bytes=self._settings.max_body_bytes,
            admin=True,
            on_refused=self.note_refusal,
            tracing=self._observing.tracing,
            more=(
                *policy_routes(self.policies),
                *arrival_routes(self._observing.arrivals),
                *decision_routes(self.plane),
                *drift_routes(self.drift, admin=True),
            ),
        )
        app = WithMetrics(admin, self.metrics.render)
        return TokenGuard(app, self._token, self.note_refusal) if self._token else app

    def grpc_app(self) -> GrpcAsgiApp:
        """Return what answers public gRPC calls."""
        limit = self._settings.max_body_bytes
        return GrpcAsgiApp(
            self.plane, max_body_bytes=limit, on_refused=self.note_refusal, tracing=self._observing.tracing
        )


def _cores(settings: Settings) -> list[int | None]:
    allowed = sorted(os.sched_getaffinity(0))
    count = settings.lanes or len(allowed)
    # More lanes than cores share cores; pinning two of them to one core would only make them wait for each other.
    if not settings.pin_lanes or count > len(allowed):
        return [None] * count
    return list(allowed[:count])


def _remotes(settings: Settings, dispatcher: Dispatcher, observer: Observer) -> Remotes | None:
    if settings.remotes is None:
        return None
    from service.engine.remotes import Remotes  # noqa: PLC0415 - the clients take 14 MB, for those that use them

    try:
        file = read_remotes(settings.remotes)
        return Remotes(file, dispatcher.calls, observer, read_certificates(file, settings.remotes.parent))
    except RemotesError as error:
        raise SettingsError(str(error)) from None


def _node(settings: Settings, isa: tuple[str, ...] | None, remotes: Remotes | None) -> Node:
    node = Node(unproven_int8=settings.unproven_int8) if isa is None else Node(isa, settings.unproven_int8)
    return node if remotes is None else replace(node, elsewhere=remotes.named)


def _keeping(settings: Settings) -> KeepingSettings:
    most_bytes, most_s = int(settings.predictions_mb * 2**20), settings.predictions_hours * 3600.0
    return KeepingSettings(settings.predictions, settings.predictions_share, most_bytes, most_s)


def _tls(settings: Settings, metrics: Metrics) -> Tls | None:
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    files = TlsFiles(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
    try:
        return Tls(files, metrics.watch_tls(), settings.max_connections)
    except TlsError as error:
        raise SettingsError(str(error)) from None


def read_token(settings: Settings) -> str:
    """Return the admin token, '' without one.

    Raises:
        SettingsError: Its file cannot be read or used.
    """
    path = settings.admin_token_file
    if path is None:
        return ""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"admin_token_file {path} cannot be read: {error}") from None
    if not token or not token.isascii():
        raise SettingsError(f"admin_token_file {path} must hold a token of ASCII characters; it is empty or has others")
    return token
