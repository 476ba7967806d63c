"""How a build tells what it is doing: bars on a terminal, one line per step elsewhere, nothing for machines.

The build calls ``task`` around each long step and ``note`` for facts worth a line; it never prints.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, contextmanager
from typing import IO, TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Advance = AbstractContextManager["Callable[[], None]"]


class Progress(Protocol):
    """Hears of steps and facts."""

    def task(self, name: str, total: int) -> Advance:
        """Return a context for a step of ``total`` parts; what it yields is called after each part."""
        ...

    def note(self, text: str) -> None:
        """Hear of one fact."""
        ...


class SilentProgress:
    """Says nothing."""

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Callable[[], None]]:  # noqa: ARG002 - the protocol's form
        """Yield a function that does nothing."""
        yield lambda: None

    def note(self, text: str) -> None:
        """Say nothing."""


class LineProgress:
    """One line per finished step, and one every ``every_s`` seconds within a long one, for logs."""

    def __init__(self, stream: IO[str], every_s: float = 30.0) -> None:
        self._stream, self._every_s = stream, every_s

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Callable[[], None]]:
        """Yield a function that counts a part; write the step's name and seconds at its end."""
        start_s = told_s = time.monotonic()
        done = 0

        def advance() -> None:
            nonlocal done, told_s
            done += 1
            now_s = time.monotonic()
            if now_s - told_s >= self._every_s and done < total:
                told_s = now_s
                self.note(f"{name}: {done} of {total}, {now_s - start_s:.0f} s")

        yield advance
        self.note(f"{name}: {time.monotonic() - start_s:.1f} s")

    def note(self, text: str) -> None:
        """Write one line."""
        self._stream.write(text + "\n")
        self._stream.flush()


class BarProgress:
    """A bar per step, for people."""

    def __init__(self, stream: IO[str]) -> None:
        self._console = Console(file=stream)

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Callable[[], None]]:
        """Yield a function that moves the bar by one part."""
        columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with RichProgress(*columns, console=self._console) as bars:
            bar = bars.add_task(name, total=total)
            yield lambda: bars.advance(bar)

    def note(self, text: str) -> None:
        """Print one line above the bars."""
        self._console.print(text, markup=False, highlight=False)


def choose_progress(stream: IO[str], *, quiet: bool) -> Progress:
    """Return silence when ``quiet``, bars on a terminal, lines elsewhere."""
    if quiet:
        return SilentProgress()
    return BarProgress(stream) if stream.isatty() else LineProgress(stream)
