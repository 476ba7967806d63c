"""The luck of each request: where its compute time lies in the distribution, and how hard its row is.

Both are drawn from a seed by the request's place in the workload, so that policies, variants and the oracle meet the
same luck.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadtests.simulator.result import NO_VARIANT
from loadtests.simulator.workload import model_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from loadtests.simulator.fleet import Fleet
    from loadtests.simulator.workload import Workload


def draw_luck(requests: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return each request's place in the distribution of compute times, and its difficulty, both 0..1 and (N,)."""
    speed, difficulty = np.random.default_rng(seed).random((2, requests), dtype=np.float32)
    return speed, difficulty


def rightly_answered(
    workload: Workload, fleet: Fleet, variant: NDArray[np.int8], difficulty: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Tell which requests these variants answer rightly, (N,): by answer sheet, or else by difficulty."""
    result, models = np.zeros(len(workload), np.bool_), model_of(workload)
    for number, ladder in enumerate(fleet.models):
        mine = np.flatnonzero((models == number) & (variant != NO_VARIANT))
        chosen = variant[mine]
        if ladder.answers is None:
            result[mine] = difficulty[mine] < ladder.accuracy[chosen]
        else:
            sheet = ladder.answers.correct
            rows = workload.row[mine] % sheet.shape[1]
            result[mine] = sheet[np.array(ladder.answers.rows_of(ladder.names))[chosen], rows]
    return result
