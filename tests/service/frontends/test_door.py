"""The door of both listeners: what is turned away before it is decoded, and what never is."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from service.domain.inference import Criticality
from service.frontends.door import Door, model_of_message
from service.frontends.grpc import CallLimits, GrpcServer
from service.frontends.http import ConnectionLimits, HttpServer
from service.frontends.plain_request import whole_infer
from service.frontends.short_way import ShortWay
from service.frontends.sockets import bind, port_of
from service.policy.crowd import Prospect
from service.policy.door import Turns
from tests.service.frontends.connections import connected_to
from tests.service.frontends.test_grpc import Echo
from tests.service.frontends.test_short_way import MOST_BODY_BYTES, Handlers, post, read_reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

HOUR = "X-Latency-Budget-Ms: 3600000"


class LateClock:
    """A second passes between any two looks: whatever is read has waited for long."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


@dataclass
class Told:
    """What the door reports, and which models it asked about."""

    counts: list[tuple[str, Mapping[Criticality, int]]] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    reported: asyncio.Event = field(default_factory=asyncio.Event)

    def door(self) -> Door:
        return Door(Turns(), LateClock(), self.budget_s, self.note)

    def budget_s(self, model: str) -> float:
        self.models.append(model)
        return 0.1

    def note(self, protocol: str, counts: Mapping[Criticality, int]) -> None:
        self.counts.append((protocol, counts))
        self.reported.set()


@dataclass
class Served:
    """An HTTP server whose loop is late."""

    port: int
    told: Told = field(default_factory=Told)
    handlers: Handlers = field(default_factory=Handlers)

    def __post_init__(self) -> None:
        self.door = self.told.door()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    with bind("127.0.0.1", 0, "http_port") as listener:
        found = Served(port_of(listener))
        way = ShortWay(found.handlers.answer, MOST_BODY_BYTES, found.door)
        server = HttpServer(found.handlers, ConnectionLimits(10, 60.0), short_way=way)
        await server.start(listener)
        yield found
        found.handlers.go.set()
        await server.close()


async def test_request_that_waited_too_long_is_told_to_come_again_and_its_connection_goes_on(served: Served) -> None:
    async with connected_to(served.port) as (reader, writer):
        for _ in range(2):
            writer.write(post(b"abc"))
            head, body = await read_reply(reader)
            assert head.startswith(b"HTTP/1.1 429 ")
            assert b"\r\nretry-after: 1\r\n" in head
            assert b"\r\ndate: " in head
            assert b"more requests come than can be read in time" in body
        writer.write(post(b"abc", HOUR))
        assert (await read_reply(reader))[1] == b"abc"
    assert len(served.handlers.seen) == 1
    assert set(served.told.models) == {"m"}


async def test_refusals_are_reported_by_number_and_criticality(served: Served) -> None:
    async with connected_to(served.port) as (reader, writer):
        for level in ("critical", "Sheddable", "nonsense"):
            writer.write(post(b"abc", f"X-Criticality: {level}"))
            await read_reply(reader)
    told, seen = served.told, Counter[Criticality]()
    while seen.total() < 3:  # in one report, or in more where they took longer than a second
        await told.reported.wait()
        told.reported.clear()
        seen = sum((Counter(counts) for protocol, counts in told.counts if protocol == "http"), Counter())
    assert seen == {Criticality.CRITICAL: 1, Criticality.SHEDDABLE: 1, Criticality.NORMAL: 1}
    assert {protocol for protocol, _ in told.counts} == {"http"}


async def test_refusals_are_told_at_once_to_who_asks(served: Served) -> None:
    told = served.told
    door = told.door()
    door.read()
    assert door.turns_away("http", b"m", {b"x-latency-budget-ms": b"0.001"})
    assert not told.counts
    door.report()
    door.report()
    assert told.counts == [("http", {Criticality.NORMAL: 1})]


async def test_request_that_comes_in_pieces_is_turned_away_when_it_is_whole(served: Served) -> None:
    data = post(bytes(200_000))
    async with connected_to(served.port) as (reader, writer):
        writer.write(data[:100_000])
        await writer.drain()
        writer.write(data[100_000:])
        assert (await read_reply(reader))[0].startswith(b"HTTP/1.1 429 ")
        writer.write(post(b"abc", HOUR))
        assert (await read_reply(reader))[1] == b"abc"


async def test_other_requests_than_inferences_are_always_let_in(served: Served) -> None:
    async with connected_to(served.port) as (reader, writer):
        writer.write(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await read_reply(reader))[1] == b"long"


async def test_pipelined_requests_are_answered_in_order_by_a_late_loop(served: Served) -> None:
    async with connected_to(served.port) as (reader, writer):
        writer.write(post(b"wait", HOUR) + post(b"abc"))
        await served.handlers.entered.wait()
        served.handlers.go.set()
        assert (await read_reply(reader))[1] == b"wait"
        assert (await read_reply(reader))[1] == b"long"  # behind another request it took the long way


class Inferences(Echo):
    """Echoes what is called an inference."""

    def is_unary(self, path: bytes) -> bool:
        return path.endswith((b"/ModelInfer", b"/Echo"))


async def test_call_that_waited_too_long_is_told_to_come_again() -> None:
    told = Told()
    server = GrpcServer(Inferences(), CallLimits(3, 4, 60.0), door=told.door())
    named = b"\x0a\x04sums and more"
    with bind("127.0.0.1", 0, "grpc_port") as listener:
        await server.start(listener)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port_of(listener)}") as channel:
            infer: Any = channel.unary_unary("/test.Service/ModelInfer")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await infer(named)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert dict(caught.value.trailing_metadata() or ())["grpc-retry-pushback-ms"] == "1000"
            assert await infer(named, metadata=[("x-latency-budget-ms", "3600000")]) == named
            echo: Any = channel.unary_unary("/test.Service/Echo")
            assert await echo(named) == named
            with pytest.raises(grpc.aio.AioRpcError) as caught:  # its deadline is shorter than its budget
                await infer(named, metadata=[("x-latency-budget-ms", "3600000")], timeout=0.5)
        assert set(told.models) == {"sums"}
        await server.close(1.0)


def test_loop_that_is_not_late_turns_nobody_away() -> None:
    turns = Turns()
    turns.begin(1.0)
    door = Door(turns, lambda: 1.0, lambda _: 1e-6, lambda *_: None)
    assert not door.turns_away("http", b"m", {})


@dataclass
class Crowd:
    """A crowd in which ``slow`` models' newcomers would be late behind others, and ``hopeless`` ones' in any case."""

    is_there: bool = True
    asked: list[tuple[str, float, Criticality]] = field(default_factory=list)
    lost: list[tuple[str, int]] = field(default_factory=list)
    gave_way_s: list[float] = field(default_factory=list)

    def is_crowded(self) -> bool:
        return self.is_there

    def prospect(self, name: str, budget_s: float, waited_s: float, criticality: Criticality) -> Prospect:
        assert waited_s >= 0.0
        self.asked.append((name, budget_s, criticality))
        if name.startswith("hopeless"):
            return Prospect.HOPELESS
        return Prospect.BEHIND if name.startswith("slow") else Prospect.TIMELY

    def give_way(self, now_s: float) -> bool:
        self.gave_way_s.append(now_s)
        return True

    def lose(self, name: str, count: int = 1) -> None:
        self.lost.append((name, count))


async def test_punctual_loop_turns_away_who_would_be_late_behind_a_crowd() -> None:
    crowd = Crowd()
    turns = Turns()
    door = Door(turns, lambda: 1.0, lambda _: 0.1, lambda *_: None, crowd)
    door.read()
    assert door.turns_away("http", b"slow--full", {b"x-criticality": b"sheddable"})
    assert not door.turns_away("http", b"quick", {})
    assert crowd.asked == [("slow--full", 0.1, Criticality.SHEDDABLE), ("quick", 0.1, Criticality.NORMAL)]
    assert turns.pressed_until_s > 1.0
    assert crowd.lost == [("slow--full", 1)]
    await asyncio.sleep(0)  # the turn's end
    crowd.is_there = False
    door.read()
    assert not door.turns_away("http", b"slow", {})


async def test_who_is_late_in_any_case_is_turned_away_without_holding_up_late_work_and_is_no_loss() -> None:
    crowd, turns = Crowd(), Turns()
    door = Door(turns, lambda: 1.0, lambda _: 0.1, lambda *_: None, crowd)
    headers: dict[bytes, bytes] = {}
    door.read()
    assert [door.turns_away("grpc", b"hopeless", headers) for _ in range(3)] == [True] * 3
    await asyncio.sleep(0)
    assert crowd.lost == []
    assert turns.pressed_until_s < 1.0


async def test_every_request_is_reported_once_whether_the_loop_or_the_lanes_are_late() -> None:
    told, crowd = Told(), Crowd()
    door = Door(Turns(), lambda: 1.0, told.budget_s, told.note, crowd)
    same: dict[bytes, bytes] = {}
    door.read()
    refused = [door.turns_away("http", model, same) for model in (b"slow", b"slow", b"quick", b"slow", b"hopeless")]
    refused.append(door.turns_away("http", b"slow", {}))
    await asyncio.sleep(0)
    door.report()
    assert told.counts == [("http", {Criticality.NORMAL: sum(refused)})]
    assert sum(count for _, count in crowd.lost) == sum(refused) - 1  # the hopeless one is no loss


async def test_the_like_of_what_was_turned_away_goes_unasked_in_the_same_turn_alone() -> None:
    crowd = Crowd()
    door = Door(Turns(), lambda: 1.0, lambda _: 0.1, lambda *_: None, crowd)
    headers: dict[bytes, bytes] = {}
    door.read()
    assert [door.turns_away("grpc", b"slow", headers) for _ in range(3)] == [True] * 3
    assert not door.turns_away("grpc", b"quick", headers)
    assert [name for name, *_ in crowd.asked] == ["slow", "quick"]
    await asyncio.sleep(0)
    assert sum(count for _, count in crowd.lost) == 3
    door.read()
    assert door.turns_away("grpc", b"slow", headers)
    assert len(crowd.asked) == 3


async def test_loop_under_pressure_gives_way_to_lanes() -> None:
    crowd, turns = Crowd(is_there=False), Turns()
    door = Door(turns, lambda: 1.0, lambda _: 0.1, lambda *_: None, crowd)
    door.read()
    assert crowd.gave_way_s == []
    turns.press(1.0)
    door.read()
    assert crowd.gave_way_s == [1.0]


async def test_time_given_to_lanes_counts_as_waited() -> None:
    moments_s = iter([1.0, 1.5])  # before and after
    turns = Turns()
    turns.press(1.0)
    Door(turns, lambda: next(moments_s, 1.5), lambda _: 0.1, lambda *_: None, Crowd(is_there=False)).read()
    assert turns.waited_s(1.5) == 0.5


PLAIN = post(b"abc", "X-A: b")


def refuse_whole(door: Door, data: bytes, default_headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    head = whole_infer(data)
    assert head is not None
    return door.refuse_whole(head, data, default_headers)


async def test_like_of_a_whole_request_is_refused_by_the_same_bytes_in_the_same_turn_alone() -> None:
    told, crowd = Told(), Crowd()
    door = Door(Turns(), lambda: 1.0, told.budget_s, told.note, crowd)
    slow, quick = (PLAIN.replace(b"/m/", b"/%b/" % name) for name in (b"slow", b"quick"))
    door.read()
    assert door.refuse_again(slow) is None
    answer = refuse_whole(door, slow, [(b"date", b"now")])
    assert answer is not None
    assert b"\r\ndate: now\r\n" in answer
    assert door.refuse_again(slow.replace(b"abc", b"xyz")) == answer
    other = slow.replace(b"X-A: b", b"X-A: c")
    assert [door.refuse_again(data) for data in (slow + b"x", slow[:-1], quick, other)] == [None] * 4
    assert refuse_whole(door, other, []) is not None
    assert [name for name, *_ in crowd.asked] == ["slow"]
    door.report()
    assert told.counts == [("http", {Criticality.NORMAL: 3})]
    await asyncio.sleep(0)  # the turn's end
    assert door.refuse_again(slow) is None
    assert sum(count for _, count in crowd.lost) == 3


async def test_like_of_another_protocol_or_criticality_counts_as_its_own() -> None:
    told, crowd = Told(), Crowd()
    door = Door(Turns(), lambda: 1.0, told.budget_s, told.note, crowd)
    door.read()
    asked: list[tuple[str, dict[bytes, bytes]]] = [
        ("http", {}),
        ("grpc", {}),
        ("grpc", {b"x-other": b"a"}),
        ("grpc", {b"x-criticality": b"critical"}),
        ("grpc", {b"x-latency-budget-ms": b"20"}),
    ]
    assert all(door.turns_away(protocol, b"slow", headers) for protocol, headers in asked)
    assert len(crowd.asked) == 4
    door.report()
    assert dict(told.counts) == {
        "http": {Criticality.NORMAL: 1},
        "grpc": {Criticality.NORMAL: 3, Criticality.CRITICAL: 1},
    }


async def test_each_of_many_refusals_is_answered_and_counted_once(served: Served) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected_to(served.port)) for _ in range(5)]
        for _ in range(4):
            for _, writer in clients:
                writer.write(post(b"abc"))
            for reader, _ in clients:
                assert (await read_reply(reader))[0].startswith(b"HTTP/1.1 429 ")
        for reader, writer in clients:
            writer.write(post(b"abc", HOUR))
            assert (await read_reply(reader))[1] == b"abc"
        writer.write(post(b"abc") + post(b"abc"))  # is not one whole request
        for _ in range(2):
            assert (await read_reply(reader))[0].startswith(b"HTTP/1.1 429 ")
    served.door.report()
    assert sum(sum(counts.values()) for _, counts in served.told.counts) == 4 * 5 + 2
    assert len(served.handlers.seen) == 5


@pytest.mark.parametrize(
    ("message", "model"),
    [(b"", b""), (b"\x0a", b""), (b"\x12\x01a", b""), (b"\x0a\x80\x01a", b""), (b"\x0a\x01ab", b"a")],
)
def test_model_is_the_first_field_of_a_message(message: bytes, model: bytes) -> None:
    assert model_of_message(message) == model
