"""What the engine asks of anything that runs a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from service.domain.variants import Profile


class Stop:
    """Breaks one run off, from any thread; ``is_set`` tells that somebody asked for it.

    The run then ends as a failed one, soon, or as well as ever where it was nearly over.
    """

    __slots__ = ("_end", "is_set")

    def __init__(self) -> None:
        """Let the run go on."""
        self.is_set = False
        self._end: Callable[[], object] | None = None

    def set(self) -> None:
        """Break the run off, now or as soon as it begins; once it is over, do nothing."""
        self.is_set = True
        if (end := self._end) is not None:
            end()

    def use(self, end: Callable[[], object]) -> None:
        """Let ``end`` break the run off, which the backend calls this for; it may be called more than once."""
        self._end = end
        if self.is_set:  # set on another thread just before: of the two, at least one sees what the other wrote
            end()


class Backend(Protocol):
    """Runs batches of one variant; several lanes may call ``run`` at the same time.

    ``is_steady`` tells that how long a run takes depends on the shapes of its inputs alone, not on what is in them.
    """

    is_steady: bool

    def run(self, inputs: Mapping[str, NDArray[Any]], stop: Stop | None = None) -> tuple[NDArray[Any], ...]:
        """Compute one batch; the outputs come in the model's order, the first dimension is the batch.

        Raises:
            BackendFailed: The runtime failed, or the run was broken off.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One batch for another server, which somebody waits for so many seconds from now.

    With ``has_other_way`` its requests could be answered otherwise, so that a silent server is not waited for that
    long. ``traceparent`` is the header of a traced request, '' where none is.
    """

    inputs: Mapping[str, NDArray[Any]]
    timeout_s: float
    has_other_way: bool = False
    traceparent: str = ""

    @property
    def rows(self) -> int:
        """The rows of the batch."""
        return len(next(iter(self.inputs.values())))


class RemoteBackend(Protocol):
    """Has other servers run batches of one variant; every method may be called from any thread."""

    def begin(self, call: Call) -> Future[tuple[NDArray[Any], ...]]:
        """Ask for one batch; the outputs come as from ``Backend.run``. Cancelling ends the call.

        The result raises:
            RemoteUnavailable: No server could be reached, or would take it; or it was silent for long.
            RemoteBackendFailed: The server failed, answered what the model cannot, or did not answer in time.
        """

    def learn(self, rows: int, seconds: float) -> float:
        """Learn from the time of one call; return what is now typical for so many rows."""

    def learnt(self) -> Profile:
        """Return the variant's profile as it is now believed."""
