"""Which server of a remote variant is asked, what follows a failure, and who counts as there; servers are doubles."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from service.domain.errors import RemoteBackendFailed, RemoteUnavailable
from service.engine import remote_variant
from service.engine.backends.backend import Call
from service.engine.remote_variant import RemoteVariant, Server
from service.policy import endpoints
from service.policy.endpoints import FAILURES_TO_EJECT, Endpoint
from tests.builders import make_model
from tests.service.engine.remoting import VARIANTS, StubEndpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from service.engine.backends.remote import Outputs

pytestmark = pytest.mark.usefixtures("patient_probes")

WAIT_S = 60.0
ONES = {"x": np.ones((1, 4), dtype=np.float32)}


@dataclass
class Site:
    """A remote variant, its servers as doubles, and the counts of servers up that were told."""

    remote: RemoteVariant
    stubs: list[StubEndpoint]
    servers: list[Server]
    told: asyncio.Queue[int] = field(default_factory=asyncio.Queue)

    async def ask(self, timeout_s: float = 30.0, *, has_other_way: bool = False) -> Outputs:
        return await asyncio.wait_for(
            asyncio.wrap_future(self.remote.begin(Call(ONES, timeout_s, has_other_way))), WAIT_S
        )

    async def until_up(self, wanted: int) -> None:
        """Wait until so many servers are up."""
        async with asyncio.timeout(WAIT_S):
            while self.remote.up != wanted:
                await self.told.get()

    @staticmethod
    async def until(is_so: Callable[[], bool]) -> None:
        """Let the event loop turn until something is so."""
        async with asyncio.timeout(WAIT_S):
            while not is_so():  # noqa: ASYNC110 - the doubles have no event for each of their counts
                await asyncio.sleep(0)

    def forget(self) -> None:
        """Forget the calls so far."""
        for stub in self.stubs:
            stub.rows.clear()
            stub.timeouts_s.clear()
            stub.entered.clear()


@asynccontextmanager
async def running(count: int = 1, **settings: Any) -> AsyncIterator[Site]:  # noqa: ANN401 - attributes of the stubs
    """Watch over so many servers until the block ends."""
    stubs = [StubEndpoint() for _ in range(count)]
    for stub in stubs:
        for name, value in settings.items():
            setattr(stub, name, value)
    servers = [Server(Endpoint(f"grpc://server-{number}:1"), stub) for number, stub in enumerate(stubs)]
    site = Site(RemoteVariant(make_model(VARIANTS), VARIANTS[0], servers), stubs, servers)
    watching = asyncio.create_task(site.remote.watch(lambda: site.told.put_nowait(site.remote.up)))
    try:
        await asyncio.wait_for(site.remote.was_looked_at(), WAIT_S)
        site.forget()
        yield site
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert all(stub.is_closed for stub in stubs)


async def test_a_call_is_answered_and_carries_its_deadline() -> None:
    async with running() as site:
        (output,) = await site.ask(timeout_s=20.0)
        assert output.tolist() == [[4.0]]
        assert 0.0 < site.stubs[0].timeouts_s[0] <= 20.0


async def test_a_server_is_up_only_after_it_has_answered_calls_of_two_sizes() -> None:
    stub = StubEndpoint()
    server = Server(Endpoint("grpc://server:1"), stub)
    remote = RemoteVariant(make_model(VARIANTS), VARIANTS[0], [server])
    watching = asyncio.create_task(remote.watch(lambda: None))
    await asyncio.wait_for(remote.was_looked_at(), WAIT_S)
    assert set(stub.rows) == {1, 8}
    assert remote.up == 1
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_calls_under_way_turn_the_next_one_to_the_other_server() -> None:
    async with running(2) as site:
        for stub in site.stubs:
            stub.gate.clear()
        tasks = [asyncio.create_task(site.ask()) for _ in range(6)]
        await site.until(lambda: sum(len(stub.rows) for stub in site.stubs) == len(tasks))
        assert [len(stub.rows) for stub in site.stubs] == [3, 3]
        for stub in site.stubs:
            stub.gate.set()
        await asyncio.gather(*tasks)


async def test_where_one_server_cannot_take_a_call_another_one_is_asked() -> None:
    async with running(2) as site:
        site.stubs[0].failure = RemoteUnavailable("refused")
        site.servers[1].state.inflight = 5  # the failing one is asked first
        (output,) = await site.ask()
        assert output.tolist() == [[4.0]]
        assert [len(stub.rows) for stub in site.stubs] == [1, 1]


async def test_a_call_is_repeated_once_and_a_tenth_of_them_at_most() -> None:
    async with running(2) as site:
        for stub in site.stubs:
            stub.failure = RemoteUnavailable("refused")
        for _ in range(100):
            with pytest.raises(RemoteUnavailable, match=r"grpc://server-\d:1: refused"):
                await site.ask()
        asked = sum(len(stub.rows) for stub in site.stubs)
        assert 100 < asked <= 100 + 11


async def test_a_call_whose_deadline_has_passed_is_not_repeated() -> None:
    async with running(2) as site:
        for stub in site.stubs:
            stub.gate.clear()
        with pytest.raises(RemoteBackendFailed, match="did not answer in time"):
            await site.ask(timeout_s=0.05)
        assert sum(len(stub.rows) for stub in site.stubs) == 1
        assert sum(stub.cancelled for stub in site.stubs) == 1
        for stub in site.stubs:
            stub.gate.set()


async def test_silent_server_is_not_waited_for_where_there_is_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_variant, "_PATIENCE_LEAST_S", 0.05)
    async with running() as site:
        site.stubs[0].gate.clear()
        with pytest.raises(RemoteUnavailable, match="server-0:1 did not answer in time"):
            await site.ask(timeout_s=WAIT_S, has_other_way=True)
        assert site.stubs[0].cancelled == len(site.stubs[0].rows) == 1
        assert site.remote.endpoints()[0].calls["silent"] == 1
        assert site.servers[0].state.failures == 1
        task = asyncio.create_task(site.ask(timeout_s=WAIT_S))  # nobody else could answer: it is waited for
        asked = len(site.stubs[0].rows)
        await site.until(lambda: len(site.stubs[0].rows) > asked)
        asyncio.get_running_loop().call_later(0.1, site.stubs[0].gate.set)  # past the patience
        assert (await task)[0].tolist() == [[4.0]]


async def test_call_that_its_client_ends_is_a_failure_only_of_a_server_that_was_silent_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as site:
        for patience_s, outcome in ((WAIT_S, "out_of_time"), (0.0, "silent")):
            monkeypatch.setattr(remote_variant, "_PATIENCE_LEAST_S", patience_s)
            monkeypatch.setattr(remote_variant, "_PATIENCE", 0.0)
            site.stubs[0].gate.clear()
            site.stubs[0].entered.clear()
            future = site.remote.begin(Call(ONES, WAIT_S))
            await asyncio.wait_for(site.stubs[0].entered.wait(), WAIT_S)
            future.cancel()
            await site.until(lambda: site.servers[0].state.inflight == 0)
            assert site.remote.endpoints()[0].calls[outcome] == 1
            assert site.servers[0].state.failures == (outcome == "silent")


async def test_calls_and_repeated_ones_are_counted() -> None:
    async with running(2) as site:
        await site.ask()
        site.stubs[0].failure = RemoteUnavailable("refused")
        site.servers[1].state.inflight = 5  # the failing one is asked first
        await site.ask()
        calls = [state.calls for state in site.remote.endpoints()]
        assert sum(item["answered"] for item in calls) == 2
        assert sum(item["unavailable"] for item in calls) == site.remote.state().retries == 1


async def test_servers_that_are_watched_no_more_take_no_calls() -> None:
    async with running() as site:
        pass
    with pytest.raises(RemoteUnavailable, match="no server is up"):
        await site.ask()


async def test_another_failure_is_not_repeated() -> None:
    async with running(2) as site:
        for stub in site.stubs:
            stub.failure = RemoteBackendFailed("out of memory")
        with pytest.raises(RemoteBackendFailed, match="out of memory"):
            await site.ask()
        assert sum(len(stub.rows) for stub in site.stubs) == 1


async def test_cancelling_ends_the_call_over_there() -> None:
    async with running() as site:
        site.stubs[0].gate.clear()
        future = site.remote.begin(Call(ONES, 30.0))
        await asyncio.wait_for(site.stubs[0].entered.wait(), WAIT_S)
        assert future.cancel()
        with pytest.raises(CancelledError):
            future.result()
        await site.until(lambda: site.stubs[0].cancelled > 0)
        assert site.servers[0].state.inflight == 0


async def test_a_server_that_goes_ends_its_calls_and_comes_back_by_itself() -> None:
    async with running() as site:
        stub = site.stubs[0]
        stub.gate.clear()
        task = asyncio.create_task(site.ask())
        await asyncio.wait_for(stub.entered.wait(), WAIT_S)
        stub.is_reachable = False
        site.servers[0].is_suspect.set()
        with pytest.raises(RemoteUnavailable, match=r"went down|no server is up"):
            await task
        await site.until_up(0)
        assert "connection refused" in site.remote.problem
        with pytest.raises(RemoteUnavailable, match="no server is up: grpc://server-0:1: connection refused"):
            await site.ask()
        stub.gate.set()
        stub.is_reachable = True
        await site.until_up(1)
        await site.ask()


async def test_a_call_that_cannot_reach_a_server_has_its_health_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_variant, "_PROBE_EVERY_S", 1e6)  # by itself it would not be asked any more
    async with running() as site:
        site.stubs[0].is_reachable = False
        site.stubs[0].failure = RemoteUnavailable("refused")
        with pytest.raises(RemoteUnavailable):
            await site.ask()
        await site.until_up(0)


async def test_a_server_that_is_not_ready_is_down() -> None:
    async with running(is_there=False) as site:
        assert site.remote.up == 0
        assert "it is not ready" in site.remote.problem
        site.stubs[0].is_there = True
        await site.until_up(1)


async def test_a_server_of_another_interface_is_left_out_and_says_why() -> None:
    async with running(problem="its inputs are {'y': 'FP64'}") as site:
        assert site.remote.up == 0
        assert "its inputs are {'y': 'FP64'}" in site.remote.problem


async def test_failures_in_a_row_eject_a_server_while_others_are_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "EJECTED_S", 1e6)  # however long the calls here take
    monkeypatch.setattr(endpoints, "MOST_EJECTED_S", 1e6)
    async with running(3) as site:
        site.stubs[0].failure = RemoteBackendFailed("broken")
        site.servers[1].state.inflight = site.servers[2].state.inflight = 50
        outcomes = await asyncio.gather(*(site.ask() for _ in range(200)), return_exceptions=True)
        failed = [item for item in outcomes if isinstance(item, RemoteBackendFailed)]
        assert FAILURES_TO_EJECT <= len(failed) < 200
        assert site.servers[0].state.is_ejected(time.monotonic())
        site.forget()
        await asyncio.gather(*(site.ask() for _ in range(20)))
        assert not site.stubs[0].rows


async def test_a_variant_loaded_again_is_recognised() -> None:
    async with running() as site:
        assert site.remote.serves(make_model(VARIANTS), VARIANTS[0])
        assert not site.remote.serves(make_model(VARIANTS), replace(VARIANTS[0], digest="cd" * 32))
        assert not site.remote.serves(replace(make_model(VARIANTS), name="other"), VARIANTS[0])
