"""One variant that other servers run: which of them is asked, what follows a failure, and who is there at all.

Lanes ask from their threads; everything else happens on one event loop, so that only what was learnt needs a lock.

**A call** goes to the less loaded of two endpoints, with what is left of the deadline. Where a server cannot be reached
or refuses, it has computed nothing, and another one is asked once, if the retry budget has a token and there is time. A
failure of any other kind is not repeated here: the lane goes on to the next variant.

**Silence.** A server whose health is well may still never answer. A call that is under way for ``_PATIENCE`` times what
is typical, a second at least, is given up as if the server were out of reach, where there is another way to answer; and
however it ends, it counts as a failure. A call that ends sooner, because its client left or had little time, does not.

**Health.** Each endpoint is asked every second whether the model is ready there; at once when a call could not reach
it; and while it is down after 0.1 s, 0.2 s, ... up to two seconds. It is down when it says so, when it cannot be
reached, or when it is silent twice in a row; then its calls under way are ended. It is up when it is ready, has the
interface of the manifest, and has answered a few made-up calls, from which the profile is learnt first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from service.domain.endpoints import OUTCOMES, EndpointState, RemoteState
from service.domain.errors import BackendFailed, RemoteBackendFailed, RemoteUnavailable
from service.engine.backends.backend import Call
from service.engine.opening import blank_inputs
from service.policy.endpoints import Endpoint, RetryBudget, choose_endpoint, is_panicking
from service.policy.remote_profile import LearntProfile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from service.domain.variants import ModelInfo, Profile, Variant
    from service.engine.backends.remote import Endpoint as Client
    from service.engine.backends.remote import Outputs

_LOGGER: Final = logging.getLogger("tiergate")
_PROBE_EVERY_S: Final = 1.0
_PROBE_WAITS_S: Final = 1.0
_FIRST_BACK_OFF_S: Final = 0.1
_MOST_BACK_OFF_S: Final = 2.0
_PROBE_LEAST_S: Final = 0.1
_SILENT_TWICE: Final = 2
_PATIENCE: Final = 10.0
_PATIENCE_LEAST_S: Final = 1.0
_CLOCK_S: Final = 1e-3
_MOST_PROBLEM: Final = 1000
_WARM_UP: Final = (1, 1, 1, 1, 8, 8)
"""Rows of the made-up calls; two sizes tell the network from the compute. The first, which connects, is not learnt."""

_WARM_UP_S: Final = 10.0


class _Silent(RemoteUnavailable):
    """The server did not answer for long; it is not asked a second time."""


@dataclass(slots=True, eq=False)
class Server:
    """One endpoint: what the policy knows of it, how it is called, and its calls under way."""

    state: Endpoint
    client: Client
    calls: set[asyncio.Task[Any]] = field(default_factory=set)
    dropped: set[asyncio.Task[Any]] = field(default_factory=set)
    is_suspect: asyncio.Event = field(default_factory=asyncio.Event)
    is_known: asyncio.Event = field(default_factory=asyncio.Event)
    problem: str = "it was not asked yet"
    silences: int = 0
    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))


class RemoteVariant:
    """The servers of one variant, a ``RemoteBackend``; its other methods are called on the event loop ``loop``."""

    def __init__(self, info: ModelInfo, variant: Variant, servers: Sequence[Server], pool: str = "") -> None:
        """Take the servers, of which none counts as up before ``watch`` has seen it; on the event loop that serves.

        ``pool`` names the lanes that call it.
        """
        self.pool = pool
        self._info = info
        self._digest = variant.digest
        self._profile = LearntProfile(variant.profile)
        self._learning = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._servers = servers
        self._budget = RetryBudget()
        self._retries = self._retries_refused = 0
        self._name = info.name, variant.name
        self._chance = random.Random()  # noqa: S311 - spreads load, keeps no secret

    @property
    def up(self) -> int:
        """How many of its servers are up."""
        return sum(server.state.is_up for server in self._servers)

    @property
    def problem(self) -> str:
        """Why its servers are not up."""
        return "; ".join(f"{item.state.name}: {item.problem}" for item in self._servers if not item.state.is_up)

    def serves(self, info: ModelInfo, variant: Variant) -> bool:
        """Tell whether it is for this very variant."""
        known, asked = (
            (name, item.inputs, item.outputs, item.max_batch_size, digest)
            for name, item, digest in (
                (self._name, self._info, self._digest),
                ((info.name, variant.name), info, variant.digest),
            )
        )
        return known == asked

    def endpoints(self) -> list[EndpointState]:
        """Return how its servers stand, and what became of the calls to them; from any thread."""
        now_s = time.monotonic()
        return [
            EndpointState(
                *self._name,
                endpoint=server.state.name,
                is_up=server.state.is_up,
                is_ejected=server.state.is_ejected(now_s),
                inflight=server.state.inflight,
                calls=dict(server.outcomes),
            )
            for server in self._servers
        ]

    def state(self) -> RemoteState:
        """Return how it stands as a whole; from any thread."""
        states = [server.state for server in self._servers]
        return RemoteState(*self._name, self._retries, self._retries_refused, is_panicking(states, time.monotonic()))

    def begin(self, call: Call) -> Future[Outputs]:
        """Ask for one batch; cancelling the future ends the call over there.

        Its result raises:
            RemoteUnavailable: No server could be reached, or would take it; or it was silent for long.
            RemoteBackendFailed: The server failed, answered what the model cannot, or did not answer in time.
        """
        asking = self._ask(call)
        try:
            return asyncio.run_coroutine_threadsafe(asking, self._loop)
        except RuntimeError:
            asking.close()
            raise RemoteUnavailable("the server is shutting down") from None

    def learn(self, rows: int, seconds: float) -> float:
        """Learn from the time of one call; return what is now typical for so many rows."""
        with self._learning:
            self._profile.observe(rows, seconds)
            return self._profile.typical_s(rows)

    def learnt(self) -> Profile:
        """Return the variant's profile as it is now believed."""
        with self._learning:
            return self._profile.profile()

    async def was_looked_at(self) -> None:
        """Return when every server has been asked for its health once."""
        for server in self._servers:
            await server.is_known.wait()

    async def watch(self, on_change: Callable[[], None]) -> None:
        """Keep asking the servers for their health until cancelled; ``on_change`` hears when one goes up or down."""
        try:
            async with asyncio.TaskGroup() as group:
                for server in self._servers:
                    group.create_task(self._watch(server, on_change))
        finally:
            for server in self._servers:
                server.state.is_up = False  # nothing new is sent
                if server.calls:  # they end by their deadlines
                    await asyncio.wait(server.calls)
                with contextlib.suppress(Exception):  # what is left of a connection is nobody's any more
                    await server.client.close()

    async def _ask(self, call: Call) -> Outputs:
        end_s, tried = self._loop.time() + call.timeout_s, list[Endpoint]()
        self._budget.called()
        while True:
            server = self._choose(tried)
            try:
                return await self._call(server, call, end_s)
            except RemoteUnavailable as error:
                tried.append(server.state)
                is_alone = isinstance(error, _Silent) and self._choose(tried) is server
                if len(tried) > 1 or self._loop.time() >= end_s or is_alone:
                    raise
                if not self._budget.may_retry():
                    self._retries_refused += 1
                    raise
                self._retries += 1

    def _choose(self, tried: Sequence[Endpoint]) -> Server:
        states = [server.state for server in self._servers]
        draws = (self._chance.random(), self._chance.random())
        chosen = choose_endpoint(states, draws, time.monotonic(), tried)
        if chosen is None:
            raise RemoteUnavailable(f"no server is up: {self.problem[:_MOST_PROBLEM]}")
        return next(server for server in self._servers if server.state is chosen)

    async def _call(self, server: Server, call: Call, end_s: float) -> Outputs:
        state, task = server.state, asyncio.current_task()
        assert task is not None  # noqa: S101 - our own invariant: calls are tasks
        silent_s = self._loop.time() + self._patience_s(call.rows)
        until_s = min(end_s, silent_s) if call.has_other_way else end_s
        outcome = "failed"
        state.inflight += 1
        server.calls.add(task)
        try:
            async with asyncio.timeout_at(until_s):
                outputs = await server.client.infer(replace(call, timeout_s=until_s - self._loop.time()))
            outcome = "answered"
        except RemoteUnavailable as error:
            outcome = "unavailable"
            server.is_suspect.set()
            raise RemoteUnavailable(f"{state.name}: {error}") from error
        except TimeoutError:
            outcome = "silent" if self._loop.time() >= silent_s - _CLOCK_S else "out_of_time"
            kind = _Silent if until_s < end_s else RemoteBackendFailed
            raise kind(f"{state.name} did not answer in time") from None
        except BackendFailed as error:
            raise RemoteBackendFailed(f"{state.name}: {error}") from error
        except asyncio.CancelledError:
            if task not in server.dropped or task.cancelling() > 1:  # nobody waits for it any more
                outcome = "silent" if self._loop.time() >= silent_s - _CLOCK_S else "out_of_time"
                raise
            outcome = "unavailable"
            task.uncancel()
            raise RemoteUnavailable(f"{state.name} went down") from None
        finally:
            state.inflight -= 1
            server.calls.discard(task)
            server.dropped.discard(task)
            self._note(server, outcome)
        return outputs

    def _note(self, server: Server, outcome: str) -> None:
        server.outcomes[outcome] += 1
        if outcome == "answered":
            server.state.succeeded(time.monotonic())
        elif outcome != "out_of_time" and server.state.failed(time.monotonic()):
            _LOGGER.warning("endpoint %s is ejected: its calls fail in a row", server.state.name)

    def _patience_s(self, rows: int) -> float:
        with self._learning:
            return max(_PATIENCE_LEAST_S, _PATIENCE * self._profile.typical_s(rows))

    async def _watch(self, server: Server, on_change: Callable[[], None]) -> None:
        back_off_s = _FIRST_BACK_OFF_S
        while True:
            server.is_suspect.clear()
            was_up, is_up = server.state.is_up, await self._is_well(server)
            server.state.is_up = is_up
            if was_up and not is_up:
                server.dropped |= server.calls
                for task in server.calls:
                    task.cancel()
            if was_up != is_up:
                on_change()
            server.is_known.set()
            if is_up:
                back_off_s = _FIRST_BACK_OFF_S
                await asyncio.sleep(_PROBE_LEAST_S)  # a server that is well and takes nothing is not asked without end
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_PROBE_EVERY_S - _PROBE_LEAST_S):
                        await server.is_suspect.wait()
            else:
                await asyncio.sleep(back_off_s)
                back_off_s = min(_MOST_BACK_OFF_S, 2.0 * back_off_s)

    async def _is_well(self, server: Server) -> bool:
        try:
            async with asyncio.timeout(_PROBE_WAITS_S):
                is_ready, server.silences = await server.client.is_ready(), 0
        except TimeoutError:
            server.silences += 1
            server.problem = f"no answer for {_PROBE_WAITS_S:g} s"
            return server.state.is_up and server.silences < _SILENT_TWICE
        except BackendFailed as error:
            server.problem = str(error)
            return False
        if is_ready and not server.state.is_up:
            server.problem = await self._meet(server)
            return not server.problem
        if not is_ready:
            server.problem = "it is not ready"
        return is_ready

    async def _meet(self, server: Server) -> str:
        """Compare interfaces and learn from made-up calls; return what keeps the server out, '' where nothing does."""
        try:
            async with asyncio.timeout(_WARM_UP_S):
                if problem := await server.client.check():
                    return problem
                await self._warm_up(server.client)
        except TimeoutError:
            return f"its made-up calls were not answered within {_WARM_UP_S:g} s"
        except BackendFailed as error:
            return str(error)
        return ""

    async def _warm_up(self, client: Client) -> None:
        for number, rows in enumerate(_WARM_UP):
            rows_here = min(rows, self._info.max_batch_size)
            inputs, start_s = blank_inputs(self._info, rows_here), time.perf_counter()
            await client.infer(Call(inputs, _WARM_UP_S))
            if number:
                self.learn(rows_here, time.perf_counter() - start_s)
