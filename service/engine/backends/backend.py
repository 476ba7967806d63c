"""What the engine asks of anything that runs a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class Backend(Protocol):
    """Runs batches of one variant; several lanes may call ``run`` at the same time."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """Compute one batch; the outputs come in the model's order, the first dimension is the batch.

        Raises:
            BackendFailed: The runtime failed.
        """
