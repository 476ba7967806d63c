"""The composition root: every part of the gateway is made and wired here, and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
import time
from typing import TYPE_CHECKING, Final

import service
from service.api.grpc_asgi import CombinedApp, GrpcAsgiApp
from service.api.http_app import HttpApp
from service.api.policy_routes import policy_routes
from service.bento_store import repository_folder
from service.engine.catalog import Identity, Parts
from service.engine.dataplane import DataPlane
from service.engine.dispatcher import Dispatcher
from service.engine.holding import Holding
from service.engine.lanes import Lanes
from service.engine.observers import Observers
from service.engine.policy_in_force import PolicyInForce
from service.engine.policy_reader import read_policy
from service.engine.registry import Registry
from service.engine.repository import Repository
from service.engine.statistics import StatisticsObserver
from service.engine.uses import Uses
from service.frontends.short_way import ShortWay
from service.frontends.wrappers import TokenGuard, WithMetrics
from service.settings import SettingsError
from service.telemetry.logs import LogObserver, log_refusal
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.api.asgi import App
    from service.api.plane import Refusal
    from service.domain.policy_file import PolicyFile
    from service.settings import Settings


_LEAVE_BEHIND_S: Final = 1.0
"""Time that lanes have to end after the drain; a run that takes longer is nobody's any more."""


class Gateway:
    """One gateway: the data plane, and the applications that translate for it.

    Make it, ``start`` it on the event loop that will serve it, and ``close`` it there.
    """

    def __init__(self, settings: Settings) -> None:
        """Wire the parts; nothing is loaded and no thread runs yet.

        Raises:
            PolicyError, SettingsError: The policy file or the token file cannot be used.
        """
        policy = read_policy(settings.policy)
        self._settings = settings
        self._token = _read_token(settings)
        self.metrics = Metrics(_budgets_s(policy.policy))
        self.metrics.policy_loaded(policy.digest)
        statistics = StatisticsObserver()
        uses, budget_bytes = Uses(), settings.memory_budget_bytes
        counting = () if budget_bytes is None else (uses,)  # only evictions go by it
        observer = Observers((statistics, self.metrics, LogObserver(access_log=settings.access_log), *counting))
        cores = _cores(settings)
        self._dispatcher = dispatcher = Dispatcher(
            len(cores), observer, time.perf_counter, settings.inline_compute_ms / 1e3
        )
        self.lanes = Lanes(dispatcher, cores, observer)
        self.holding = Holding(observer, budget_bytes, uses=uses, parking=dispatcher.parking)
        repository = Repository(repository_folder(settings.repository))
        self.registry = Registry(repository, policy.policy, observer, settings.max_timeout_s, self.holding)
        self.policies = PolicyInForce(policy, settings.policy, self.registry, dispatcher, observer)
        self._watching: asyncio.Task[None] | None = None
        identity = Identity("tiergate", service.__version__, settings.required_models)
        parts = Parts(identity, self.registry, dispatcher, statistics)
        self.plane = DataPlane(parts, self.lanes, observer)
        self._public = HttpApp(self.plane, max_body_bytes=settings.max_body_bytes, on_refused=self.note_refusal)
        self.metrics.watch(
            depths=dispatcher.depths,
            inflight=lambda: self.plane.inflight,
            busy_s=lambda: [lane.busy_s for lane in dispatcher.desk.lanes],
        )

    async def start(self) -> None:
        """Load the models and start the lanes.

        Raises:
            BackendFailed: The repository cannot be read.
        """
        await _in_daemon_thread(self.registry.load_all)
        # What is loaded now lives until the end: looking through it again and again would only stall requests.
        gc.collect()
        gc.freeze()
        self.holding.start()
        self.lanes.start()
        self._watching = asyncio.create_task(self.policies.watch())

    async def drain(self) -> None:
        """Stop being ready, answer on through the grace window, then refuse newcomers and finish what is inside."""
        self.plane.leave()
        try:
            await asyncio.sleep(self._settings.drain_grace_s)
            self.plane.refuse_new()
            async with asyncio.timeout(self._settings.drain_timeout_s):
                await self.plane.wait_until_idle()
        except TimeoutError:
            pass  # what is still inside gets its refusal below
        finally:
            self.plane.refuse_new()
            self._dispatcher.abandon()

    async def close(self) -> None:
        """End the lanes; what still waits is refused."""
        if self._watching is not None:
            self._watching.cancel()
        self.holding.close()
        await asyncio.to_thread(self.lanes.close, _LEAVE_BEHIND_S)

    def http_app(self) -> App:
        """Return the public ASGI application: the protocol, and the metrics."""
        return WithMetrics(self._public, self.metrics.render)

    def short_way(self) -> ShortWay:
        """Return what answers plain infer requests without ASGI."""
        return ShortWay(self._public.answer, self._settings.max_body_bytes)

    def combined_app(self) -> App:
        """Return one public ASGI application for HTTP and gRPC, for servers that carry both on one port."""
        limit = self._settings.max_body_bytes
        http = HttpApp(self.plane, max_body_bytes=limit, on_refused=self.note_refusal)
        return WithMetrics(CombinedApp(http, self.grpc_app()), self.metrics.render)

    def admin_app(self) -> App:
        """Return the administrators' ASGI application: the same, and models and policy to change, behind the token."""
        admin = HttpApp(
            self.plane,
            max_body_bytes=self._settings.max_body_bytes,
            admin=True,
            on_refused=self.note_refusal,
            more=policy_routes(self.policies),
        )
        app = WithMetrics(admin, self.metrics.render)
        return TokenGuard(app, self._token, self.note_refusal) if self._token else app

    def grpc_app(self) -> GrpcAsgiApp:
        """Return what answers public gRPC calls."""
        limit = self._settings.max_body_bytes
        return GrpcAsgiApp(self.plane, max_body_bytes=limit, on_refused=self.note_refusal)

    def note_refusal(self, refusal: Refusal) -> None:
        """Log a refused request; count an inference that could not be decoded, since the data plane never saw it."""
        log_refusal(refusal.protocol, refusal.request_id, refusal.error)
        if refusal.stage == "decode":
            self.metrics.request_malformed(refusal.protocol, refusal.error)


async def _in_daemon_thread(work: Callable[[], None]) -> None:
    """Do blocking work that must not keep the process alive when it is told to end meanwhile."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is raised again where the work is awaited
            failures.append(error)
        with contextlib.suppress(RuntimeError):  # the loop is gone when the process was told to end
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="loading", daemon=True).start()
    await done.wait()
    if failures:
        raise failures[0]


def _cores(settings: Settings) -> list[int | None]:
    allowed = sorted(os.sched_getaffinity(0))
    count = settings.lanes or len(allowed)
    # More lanes than cores share cores; pinning two of them to one core would only make them wait for each other.
    if not settings.pin_lanes or count > len(allowed):
        return [None] * count
    return list(allowed[:count])


def _budgets_s(policy: PolicyFile) -> list[float]:
    models = [policy.default, *policy.models.values()]
    classes = [item.default_budget_s for item in policy.hardware_classes.values()]
    return [model.default_budget_s for model in models] + [budget_s for budget_s in classes if budget_s is not None]


def _read_token(settings: Settings) -> str:
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
