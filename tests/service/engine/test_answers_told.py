"""When observers hear of an answer: in the next turn of the event loop, and before the gateway counts as idle."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.builders import make_request

if TYPE_CHECKING:
    from tests.service.engine.conftest import Bench


async def test_every_answer_is_told_by_the_time_that_the_gateway_is_idle(bench: Bench) -> None:
    async def told_when_idle() -> int:
        await bench.plane.wait_until_idle()
        return len(bench.events.finished)

    gate = bench.close_gates()
    answered = await bench.occupy(gate)
    idle = asyncio.create_task(told_when_idle())
    gate.set()
    assert await idle == 1
    await answered
    await bench.told()
    assert len(bench.events.finished) == 1


async def test_who_gets_an_answer_finds_it_told_in_his_next_turn(bench: Bench) -> None:
    seen: list[int] = []

    def look() -> None:
        seen.append(len(bench.events.finished))

    for number in range(1, 20):
        await bench.plane.infer(make_request())
        asyncio.get_running_loop().call_soon(look)
        await bench.told()
        assert seen[-1] == number
