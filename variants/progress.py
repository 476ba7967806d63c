"""How a build tells what it is doing: bars of what runs on a terminal, lines elsewhere, nothing for machines.

The build wraps each long step in ``show_step``, which shows that it moves and, when it is done, notes what it took; it
calls ``note`` for other facts worth a line, and never prints.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, contextmanager
from typing import IO, TYPE_CHECKING, Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from variants.effort import watch_effort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB: Final = 1024 * 1024
Advance = AbstractContextManager["Callable[[], None]"]


class Progress(Protocol):
    """Hears of steps and facts."""

    def task(self, name: str, total: int) -> Advance:
        """Return a context for a step of ``total`` parts; what it yields is called after each part.

        Several may be open at once, of steps that run beside each other in processes of their own.
        """
        ...

    def note(self, text: str) -> None:
        """Hear of one fact."""
        ...


@contextmanager
def show_step(progress: Progress, name: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a step of ``total`` parts, and note its time and peak memory when it is done; yield what counts a part."""
    start_s = time.monotonic()
    with watch_effort() as effort, progress.task(name, total) as advance:
        yield advance
    progress.note(f"{name}: {time.monotonic() - start_s:.1f} s, peak memory {effort.peak_bytes / MIB:.0f} MiB")


class SilentProgress:
    """Says nothing."""

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Callable[[], None]]:  # noqa: ARG002 - the protocol's form
        """Yield a function that does nothing."""
        yield lambda: None

    def note(self, text: str) -> None:
        """Say nothing."""


class LineProgress:
    """A line for each note, and one every ``every_s`` seconds within a long step, for logs."""

    def __init__(self, stream: IO[str], every_s: float = 30.0) -> None:
        self._stream, self._every_s = stream, every_s

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Callable[[], None]]:
        """Yield a function that counts a part, and now and then writes how many there are."""
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

    def note(self, text: str) -> None:
        """Write one line."""
        self._stream.write(text + "\n")
        self._stream.flush()


class BarProgress:
    """A bar for each step that runs, below the lines of what is done, for people."""

    def __init__(self, stream: IO[str]) -> None:
        self._console = Console(file=stream)
        self._bars: RichProgress | None = None

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Callable[[], None]]:
        """Yield a function that moves the bar by one part; the bar goes when the step ends."""
        bars = self._shown()
        bar = bars.add_task(name, total=total)
        try:
            yield lambda: bars.advance(bar)
        finally:
            bars.remove_task(bar)
            if not bars.tasks:  # a terminal shows one such display at a time, and none while nothing runs
                bars.stop()
                self._bars = None

    def note(self, text: str) -> None:
        """Print one line above the bars."""
        self._console.print(text, markup=False, highlight=False)

    def _shown(self) -> RichProgress:
        """Return the display, begun with the first of the bars that are shown together."""
        if self._bars is None:
            columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bars = RichProgress(*columns, console=self._console, transient=True)
            self._bars.start()
        return self._bars


def choose_progress(stream: IO[str], *, quiet: bool) -> Progress:
    """Return silence when ``quiet``, bars on a terminal, lines elsewhere."""
    if quiet:
        return SilentProgress()
    return BarProgress(stream) if stream.isatty() else LineProgress(stream)
