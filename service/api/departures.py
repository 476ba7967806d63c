"""Noticing that the client has left while its answer is awaited, at the price of one small task.

After the body, uvicorn's ``receive`` returns when the client has left. pyvoy's returns at once, with an empty message
for as long as the client is there, and so has to be asked again from time to time.
"""

from __future__ import annotations

import asyncio
import types
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

    from service.api.asgi import Message, Receive

T = TypeVar("T")

_INBOX_SIZE: Final = 16  # pieces of a body that wait to be read; the server holds back the rest
_POLL_S: Final = 0.05


class ClientLeft(Exception):
    """The client closed the connection, so that there is nobody to answer."""


async def unless_left(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """Await the work; a client that leaves meanwhile cancels it. Call it when the request's body is complete.

    Work that never has to wait is done before a task could watch for the client, so none is made for it.

    Raises:
        ClientLeft: The client went away.
    """
    try:
        first = work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    return await _guarded(_go_on(work, first), _cancel_when_left(receive, asyncio.current_task()))


@types.coroutine
def _go_on(work: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:  # noqa: ANN401 - the event loop's
    """Await a coroutine that has been started and waits for something already."""
    while True:
        try:
            try:
                value = yield waits_for
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:  # noqa: BLE001 - whatever is thrown in is the coroutine's to handle
                waits_for = work.throw(error)
            else:
                waits_for = work.send(value)
        except StopIteration as done:
            result: T = done.value
            return result


async def stream_unless_left(
    work: Callable[[Receive], Awaitable[T]], receive: Receive, on_read: Callable[[int], None] = lambda _: None
) -> T:
    """Await work that still reads the request's body through the ``receive`` it is given; see ``unless_left``.

    ``on_read`` hears how many bytes the work is done with, which is so when it asks for more; first of all of none.

    Raises:
        ClientLeft: The client went away.
    """
    inbox: asyncio.Queue[Message] = asyncio.Queue(_INBOX_SIZE)
    size = 0

    async def read() -> Message:
        nonlocal size
        on_read(size)
        message = await inbox.get()
        size = len(message.get("body", b""))
        return message

    on_read(0)
    return await _guarded(work(read), _forward_until_left(receive, inbox, asyncio.current_task()))


async def _guarded(work: Awaitable[T], watching: Coroutine[Any, Any, None]) -> T:
    current = asyncio.current_task()
    watch = asyncio.get_running_loop().create_task(watching)
    try:
        return await work
    except asyncio.CancelledError:
        if current is not None and watch.done() and not watch.cancelled():
            current.uncancel()
            raise ClientLeft from None
        raise
    finally:
        watch.cancel()


async def _cancel_when_left(receive: Receive, task: asyncio.Task[Any] | None) -> None:
    while (await receive())["type"] != "http.disconnect":  # noqa: ASYNC110 - the server decides what there is to await
        await asyncio.sleep(_POLL_S)
    if task is not None:
        task.cancel()


async def _forward_until_left(receive: Receive, inbox: asyncio.Queue[Message], task: asyncio.Task[Any] | None) -> None:
    message = await receive()
    while message["type"] != "http.disconnect":
        await inbox.put(message)
        if not message.get("more_body", False):
            return await _cancel_when_left(receive, task)
        message = await receive()
    if task is not None:
        task.cancel()
    return None
