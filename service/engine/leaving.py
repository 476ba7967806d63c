"""Clients that have left, noticed before a run is begun for them.

The event loop notices when it comes to read that. Under load it reads what came before first, and lanes take requests
meanwhile: of clients that left at once after sending, the kernel knew nearly all when the run for them began. So a lane
asks the kernel for each request that it is about to run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from service.engine.loaded import LoadedModel
    from service.policy.desk import Desk
    from service.policy.situation import Run

_LOOKED_FROM_S: Final = 2e-4
"""Looking takes 2.5 us for each request, with the interpreter; of runs as short as that it would be a part."""


def take_departed(desk: Desk[LoadedModel], model: LoadedModel, run: Run) -> bool:
    """End and take out those of a run's requests whose clients have left; tell whether there were any.

    Not on their event loop's thread. The dispatcher's lock is held.
    """
    if run.predicted_s < _LOOKED_FROM_S * len(run.members):
        return False
    departed = [ticket for ticket in model.queue.at(run.members) if ticket.done.has_left()]
    for ticket in departed:
        ticket.is_over = True
        desk.remove(ticket)
        ticket.call_on_loop(ticket.done.cancel)
    return bool(departed)
