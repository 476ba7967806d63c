"""Small questions for the tuner: a ladder with some spread in its times, and a few hundred arrivals."""

from __future__ import annotations

import numpy as np

from loadtests.arrivals import gamma_renewal, poisson
from loadtests.simulator.ladder import Ladder
from loadtests.tuner.question import Limits, Question, ask
from service.domain.policy_file import ModelPolicy
from service.domain.variants import LatencyCell, Profile, Variant

FIGURES = {"full": (0.030, 0.92), "quantized": (0.009, 0.915), "distilled": (0.002, 0.86)}
BUDGET_S = 0.1


def ladder(policy: ModelPolicy | None = None, *, memory_bytes: int = 2**20) -> Ladder:
    variants = []
    for name, (seconds, accuracy) in FIGURES.items():
        cells = tuple(LatencyCell(n, seconds * n, 1.2 * seconds * n, 1.5 * seconds * n) for n in (1, 2, 4))
        variants.append(Variant(name, name, accuracy, Profile(cells), memory_bytes, 0, ""))
    return Ladder("sums", tuple(variants), 4, policy or ModelPolicy(default_budget_ms=1e3 * BUDGET_S))


def question(
    limits: Limits | None = None, *, rate_hz: float = 150.0, cv: float = 4.0, seconds: float = 4.0
) -> Question:
    """Return bursts to tune and to judge on; more than the full variant could answer on two lanes."""
    parts = []
    for seed in (0, 1):
        rng = np.random.default_rng([seed, 3])
        times = gamma_renewal(rate_hz, cv, seconds, rng) if cv > 1.0 else poisson(rate_hz, seconds, rng)
        parts.append(ask(times, ((BUDGET_S, 1.0),), 2.0, seed))
    return Question(ladder(), (parts[0],), (parts[1],), limits or Limits(attainment=0.5), lanes=2)
