"""A future that tells who waits for it at once.

asyncio's futures call back in the event loop's next turn. Under load that turn begins with reading all that has come
meanwhile, some requests or some dozens, and an answer that is ready waits until that is done.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def _stays() -> bool:
    """Tell that who waits has not left, as far as anybody knows."""
    return False


class PromptFuture(asyncio.Future[T], Generic[T]):
    """A future that can be awaited as any other, and told about by ``tell`` and ``end`` without a turn in between.

    ``has_left`` tells, from any thread, whether who waits has left, perhaps before the loop knows.
    """

    __slots__ = ("_at_once", "has_left")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for a result; to be used on the thread of ``loop`` alone."""
        super().__init__(loop=loop)
        self._at_once: Callable[[asyncio.Future[T]], object] | None = None
        self.has_left = _stays

    def tell(self, callback: Callable[[asyncio.Future[T]], object], has_left: Callable[[], bool] = _stays) -> None:
        """Call back when it is done: within ``end``, or else in the loop's next turn. One callback can be told so."""
        self._at_once = callback
        self.has_left = has_left
        self.add_done_callback(callback)

    def end(self, result: T) -> None:
        """Set the result and call back; not from within a task. What the callback raises goes to the loop's handler."""
        callback = self._at_once
        if callback is not None:
            self.remove_done_callback(callback)
        self.set_result(result)
        if callback is None:
            return
        try:
            callback(self)
        except Exception as error:  # noqa: BLE001 - as the loop does; others may end in the same go
            self.get_loop().call_exception_handler({"message": "a callback failed", "exception": error, "future": self})
