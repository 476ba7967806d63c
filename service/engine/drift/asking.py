"""What others ask of the thread that watches drift: each question gets a future, and none is left without an end."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from service.domain.errors import Draining

if TYPE_CHECKING:
    from collections.abc import Callable

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Asked(Generic[_Answer]):
    """Something to do, and where what comes of it is awaited."""

    act: Callable[[], _Answer]
    answer: Future[_Answer]

    def work(self) -> None:
        """Do it."""
        if self.answer.set_running_or_notify_cancel():
            try:
                self.answer.set_result(self.act())
            except Exception as error:  # noqa: BLE001 - it is raised where the answer is awaited
                self.answer.set_exception(error)


class Asking:
    """The questions that wait; any thread may ask, one takes them."""

    def __init__(self) -> None:
        """Begin with none."""
        self._waiting: SimpleQueue[Asked[Any] | None] = SimpleQueue()
        self._is_over = False

    def ask(self, act: Callable[[], _Answer]) -> Future[_Answer]:
        """Have something done, and return what will come of it."""
        answer: Future[_Answer] = Future()
        self._waiting.put(Asked(act, answer))
        if self._is_over:
            self.end()
        return answer

    def take(self, timeout_s: float) -> Asked[Any] | None:
        """Wait for a question; ``None`` tells that there will be no more.

        Raises:
            queue.Empty: Nobody asked.
        """
        return self._waiting.get(timeout=timeout_s)

    def close(self) -> None:
        """Let ``take`` return ``None`` after what was asked by now."""
        self._waiting.put(None)

    def end(self) -> None:
        """Refuse what nobody takes any more, now and from now on."""
        self._is_over = True
        while not self._waiting.empty():
            asked = self._waiting.get()
            if asked is not None and asked.answer.set_running_or_notify_cancel():
                asked.answer.set_exception(Draining("the server is shutting down"))
