"""What the engine asks of anything that runs a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from service.domain.variants import Profile


class Backend(Protocol):
    """Runs batches of one variant; several lanes may call ``run`` at the same time."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """Compute one batch; the outputs come in the model's order, the first dimension is the batch.

        Raises:
            BackendFailed: The runtime failed.
        """


class RemoteBackend(Protocol):
    """Has other servers run batches of one variant; every method may be called from any thread."""

    def begin(self, inputs: Mapping[str, NDArray[Any]], timeout_s: float) -> Future[tuple[NDArray[Any], ...]]:
        """Ask for one batch within so many seconds; the outputs come as from ``Backend.run``. Cancelling ends the call.

        The result raises:
            RemoteUnavailable: No server could be reached, or would take it.
            RemoteBackendFailed: The server failed, or did not answer in time.
        """

    def learn(self, rows: int, seconds: float) -> float:
        """Learn from the time of one call; return what is now typical for so many rows."""

    def learnt(self) -> Profile:
        """Return the variant's profile as it is now believed."""
