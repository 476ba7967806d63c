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
    """One line per finished step, for logs."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Callable[[], None]]:  # noqa: ARG002 - the protocol's form
        """Yield a function that does nothing; write the step's name and seconds at its end."""
        start_s = time.monotonic()
        yield lambda: None
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
