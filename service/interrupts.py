"""How a command hears that it is to end: SIGTERM, and SIGHUP of a terminal that closes, do what Ctrl-C does.

Python ends at once on SIGTERM, without running a single ``finally``; whatever the command had started would stay. Heard
as Ctrl-C, they take the way that every command has: it ends what it started, and keeps what Ctrl-C keeps.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_ECHO_S: Final = 1.0
"""``timeout`` sends its signal twice, and of a terminal that closes both the kernel and the shell tell; the second must
not meet what the first has set going."""


@contextlib.contextmanager
def heard_as_interrupts() -> Iterator[None]:
    """Hear SIGTERM and SIGHUP as Ctrl-C, each once a second at the most, until the block or the function ends.

    What is ignored stays so, such as SIGHUP under ``nohup``, and what has a handler keeps it. Only a main thread hears
    signals; in another one nothing changes.
    """
    last_s = float("-inf")

    def hear(_number: int, frame: FrameType | None) -> None:
        nonlocal last_s
        if time.monotonic() - last_s <= _ECHO_S:
            return
        last_s = time.monotonic()
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):  # shells let what a script runs in the background ignore Ctrl-C
            raise KeyboardInterrupt
        handler(signal.SIGINT, frame)

    with contextlib.ExitStack() as stack:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:
                stack.enter_context(_handled(number, hear))
        yield


def on_interrupt(act: Callable[[], object]) -> contextlib.AbstractContextManager[None]:
    """Do this at Ctrl-C, in place of raising ``KeyboardInterrupt``, until the block ends; again only a main thread."""
    return _handled(signal.SIGINT, lambda *_: act())


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait until the block ends: a process of which only half is known would be left behind."""
    heard: list[bool] = []
    with on_interrupt(lambda: heard.append(True)):
        yield
    if heard:
        raise KeyboardInterrupt


@contextlib.contextmanager
def _handled(number: int, handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
