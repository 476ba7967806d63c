"""Futures that tell at once who waits for them."""

from __future__ import annotations

import asyncio
from typing import Any

from service.engine.prompt import PromptFuture


async def test_who_was_told_about_hears_within_the_end_and_once() -> None:
    future: PromptFuture[int] = PromptFuture(asyncio.get_running_loop())
    heard: list[int] = []
    future.tell(lambda done: heard.append(done.result()))
    future.end(7)
    assert heard == [7]
    await asyncio.sleep(0)
    assert heard == [7]
    assert future.result() == 7


async def test_task_awaits_it_as_any_other() -> None:
    future: PromptFuture[int] = PromptFuture(asyncio.get_running_loop())

    async def wait() -> int:
        return await future

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    future.end(7)
    assert not task.done()
    assert await task == 7


async def test_cancelled_one_tells_in_the_next_turn() -> None:
    future: PromptFuture[int] = PromptFuture(asyncio.get_running_loop())
    heard: list[bool] = []
    future.tell(lambda done: heard.append(done.cancelled()))
    future.cancel()
    assert heard == []
    await asyncio.sleep(0)
    assert heard == [True]


async def test_failure_of_who_hears_goes_to_the_loop_and_stops_nobody() -> None:
    loop = asyncio.get_running_loop()
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    future: PromptFuture[int] = PromptFuture(loop)

    def fail(_: object) -> None:
        raise ValueError("no")

    future.tell(fail)
    future.end(7)
    assert [str(context["exception"]) for context in failures] == ["no"]
