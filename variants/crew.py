"""Make variants beside each other: orders go to a few processes, each as soon as its parent variant is finished.

Workers share nothing but the folder of finished steps. They keep steps there as an ordinary build does, with the same
seeds and threads, and hand nothing back: when the crew has gone the build fills all orders itself and finds every step
done. So the bytes are those of a build without a crew; whatever ends a crew loses nothing that was finished; and what
is measured later is measured with no worker beside it.

Processes are spawned, not forked, for torch's threads do not survive a fork. They wait passively for each other's
threads, since there may be more of these than cores. A worker never hears Ctrl-C, which a terminal sends to all: the
build ends its workers, and a worker whose build was killed ends itself.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Final

from variants.cache import StepCache
from variants.data import map_parts
from variants.effort import include_peak, watch_effort
from variants.errors import BuildError, StepFailed
from variants.workshop import Workshop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.context import SpawnProcess
    from pathlib import Path

    from variants.progress import Progress
    from variants.recipe import AnyRecipe
    from variants.workshop import Made, Order

WAITING: Final = "OMP_WAIT_POLICY"


@dataclass(frozen=True, slots=True)
class Site:
    """What a worker needs to make variants, all of it to be pickled: ``rows`` is a folder that ``store_parts`` filled.

    ``order`` returns the same orders in every process.
    """

    load: Callable[[], AnyRecipe]
    rows: Path
    seed: int
    steps: Path
    order: Callable[[Workshop], Sequence[Order]]

    def open(self, progress: Progress) -> Workshop:
        """Return the workshop in this process."""
        return Workshop(self.load(), map_parts(self.rows), self.seed, StepCache(self.steps), progress)


@dataclass(frozen=True, slots=True)
class Began:
    """A step began."""

    step: str
    total: int


@dataclass(frozen=True, slots=True)
class Moved:
    """A part of a step is done."""

    step: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A step ended, well or not."""

    step: str


@dataclass(frozen=True, slots=True)
class Noted:
    """A fact worth a line."""

    text: str


@dataclass(frozen=True, slots=True)
class Filled:
    """An order was filled, by a process that held ``peak_bytes`` at most."""

    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Failed:
    """An order cannot be filled, or the disk refuses; ``trace`` tells where, for people."""

    error: BuildError | OSError
    trace: str


Word = Began | Moved | Ended | Noted | Filled | Failed
"""What a worker tells the build."""


def work_ahead(site: Site, orders: Sequence[Order], count: int, progress: Progress) -> None:
    """Fill ``orders``, each after its parent's unless that is none of them, in at most ``count`` processes.

    Raises:
        BuildError: An order cannot be filled, or a worker was killed; the other workers have ended by then.
        OSError: A step cannot be kept on disk; the same.
    """
    waiting = sorted(orders, key=lambda order: order.prepare is None)  # those that take long, first
    unfilled = {order.name for order in orders}
    workers: list[_Worker] = []
    with ExitStack() as stack:
        workers += [stack.enter_context(_start(site, progress)) for _ in range(min(count, len(orders)))]
        while unfilled:
            for worker in workers:
                ready = next((order for order in waiting if order.parent not in unfilled), None)
                if worker.order is None and ready is not None:
                    waiting.remove(ready)
                    worker.begin(ready.name)
            for connection in wait([worker.connection for worker in workers]):
                worker = next(one for one in workers if one.connection is connection)
                if (filled := worker.hear()) is not None:
                    unfilled.remove(filled)
        for worker in workers:
            worker.dismiss()


@dataclass(slots=True)
class _Worker:
    """A worker as its build sees it: the order that it fills, and the bars of the steps that it is in."""

    process: SpawnProcess
    connection: Connection
    progress: Progress
    order: str | None = None
    bars: dict[str, tuple[ExitStack, Callable[[], None]]] = field(default_factory=dict)

    def begin(self, order: str) -> None:
        """Have an order filled."""
        self.order = order
        self.connection.send(order)

    def hear(self) -> str | None:
        """Take the worker's next word; return the order that it filled, if that is what it says.

        Raises:
            BuildError: The order cannot be filled, or the worker was killed.
            OSError: A step cannot be kept on disk.
        """
        try:
            word: Word = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            raise StepFailed(
                f"making '{self.order}' failed: its process ended with exit code {self.process.exitcode} (-9 is often "
                "want of memory: give fewer --jobs); run the same command again to go on"
            ) from None
        match word:
            case Began(step, total):
                bar = ExitStack()
                self.bars[step] = bar, bar.enter_context(self.progress.task(step, total))
            case Moved(step):
                self.bars[step][1]()
            case Ended(step):
                self.bars.pop(step)[0].close()
            case Noted(text):
                self.progress.note(text)
            case Filled(peak_bytes):
                include_peak(peak_bytes)
                filled, self.order = self.order, None
                return filled
            case Failed(error, trace):
                error.add_note(trace)
                raise error
        return None

    def dismiss(self) -> None:
        """Let the worker end, which has nothing to do."""
        self.connection.send(None)
        self.process.join()

    def end(self) -> None:
        """End the worker, whatever it does; what it finished is on disk."""
        self.process.kill()
        self.process.join()
        self.connection.close()
        for bar, _ in self.bars.values():
            bar.close()


@contextmanager
def _start(site: Site, progress: Progress) -> Iterator[_Worker]:
    """Yield a worker that waits for orders; end it with the block."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(site, theirs), daemon=True)
    with _inherited():
        process.start()
    theirs.close()
    worker = _Worker(process, ours, progress)
    try:
        yield worker
    finally:
        worker.end()


@contextmanager
def _inherited() -> Iterator[None]:
    """Set what a process that starts here inherits: passive waiting for threads, and deaf ears for Ctrl-C."""
    resource_tracker.ensure_running()  # else it is started with the first worker, and unblocks the signal
    before, mask = os.environ.get(WAITING), signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ[WAITING] = before or "passive"
    try:
        yield
    finally:
        if before is None:
            del os.environ[WAITING]
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def work(site: Site, connection: Connection) -> None:
    """Fill the orders whose names arrive, in this process, until ``None`` does; tell how it goes."""
    threading.Thread(target=_end_with_the_build, daemon=True).start()
    try:
        orders: dict[str, Order] = {}
        made: dict[str, Made] = {}
        while (name := connection.recv()) is not None:
            with watch_effort() as effort:
                orders = orders or {order.name: order for order in site.order(site.open(_Pipe(connection)))}
                _fill(orders, name, made)
            _tell(connection, Filled(effort.peak_bytes))
    except (BuildError, OSError) as error:
        _tell(connection, Failed(error, traceback.format_exc()))


def _tell(connection: Connection, word: Word) -> None:
    """Tell the build something; where it has ended, so does this process, whatever it is in."""
    try:
        connection.send(word)
    except ConnectionError:
        os._exit(1)


def _fill(orders: dict[str, Order], name: str, made: dict[str, Made]) -> None:
    """Fill an order after its parent, which is on disk."""
    order = orders[name]
    if order.parent is not None and order.parent not in made:
        _fill(orders, order.parent, made)
    if name not in made and (one := order.fill(made)) is not None:
        made[name] = one


def _end_with_the_build() -> None:
    """End this process when the one that started it has ended, however that was."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class _Pipe:
    """Progress that is told to another process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Callable[[], None]]:
        """Yield a function that tells of a part."""
        _tell(self._connection, Began(name, total))
        try:
            yield lambda: _tell(self._connection, Moved(name))
        finally:
            _tell(self._connection, Ended(name))

    def note(self, text: str) -> None:
        """Tell of a fact."""
        _tell(self._connection, Noted(text))
