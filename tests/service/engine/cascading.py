"""A bench with a model that answers by a cascade, and its requests, one stage at a time."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from service.domain.inference import NO_KNOBS, Criticality, Knobs
from service.domain.policy_file import ModelPolicy
from service.domain.variants import Cascade
from service.engine.backends.stub import StubBackend
from service.engine.loaded import LoadedModel
from service.engine.prompt import PromptFuture
from service.engine.ticket import Ticket
from service.policy.routing import Rules
from service.policy.situation import Waiting
from tests.builders import make_model, make_request, make_variant
from tests.service.engine.conftest import Gate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from service.engine.backends.backend import Stop
    from tests.service.engine.conftest import Bench

VARIANTS = (make_variant("full", 0.92, 0.020), make_variant("small", 0.86, 0.002))
CASCADE = Cascade("small", "full", margin=1.0, escalated_ratio=0.3, accuracy=0.915)
SURE, UNSURE = 1.0, 0.1
"""Values of a request whose margin is four times that."""


class Classifier(StubBackend):
    """Answers two classes: ``scale`` times the sum of each row, and nothing; the margin is their difference."""

    def run(self, inputs: Mapping[str, NDArray[Any]], stop: Stop | None = None) -> tuple[NDArray[Any], ...]:
        (sums,) = super().run(inputs, stop)
        return (np.hstack([sums, np.zeros_like(sums)]),)


class Cascading:
    """A bench with a model that always starts with its cascade, and its tickets, which end without a data plane.

    The objective ``cost`` makes the cascade the choice on an idle machine too; the full variant doubles what the small
    one answers.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.full, self.small = Classifier(2.0), Classifier(1.0)
        bench.stubs |= {"full": self.full, "small": self.small}
        policy = ModelPolicy(
            cascades=True, objective="cost", safety_margin_ratio=0.0, exploration_share=0.0, max_queued=5
        )
        info = make_model(VARIANTS, "digits", cascades=[CASCADE])
        self.model = LoadedModel(info, Rules(policy, {}, 60.0), {"full": self.full, "small": self.small})
        bench.registry.adopt(self.model)

    def ticket(self, value: float = UNSURE, budget_s: float = 30.0, rows: int = 1, knobs: Knobs = NO_KNOBS) -> Ticket:
        """Return a ticket that is let in nowhere yet."""
        now_s = self.bench.clock()
        route, costs = self.model.route(knobs, now_s), self.model.costs(now_s)
        waiting = Waiting(now_s + budget_s, now_s + budget_s + 30.0, rows, route.names, None)
        return Ticket(
            request=make_request(value, rows, knobs, "digits"),
            model=self.model,
            route=route,
            waiting=waiting,
            costs=costs,
            arrived_s=now_s,
            fastest_s=costs.fastest_s(waiting),
            thread=threading.get_ident(),
            done=PromptFuture(asyncio.get_running_loop()),
        )

    def submit(self, *tickets: Ticket) -> None:
        for ticket in tickets:
            assert self.bench.dispatcher.submit(ticket) is None

    def hold(self) -> tuple[Gate, Gate]:
        """Hold the runs of the full variant and of the small one, until the gates that are returned are set."""
        self.full.gate, self.small.gate = Gate(), Gate()
        return self.full.gate, self.small.gate

    async def second_stage(self, budget_s: float = 30.0, knobs: Knobs = NO_KNOBS) -> tuple[Ticket, Gate]:
        """Return a ticket whose second stage computes, and the gate that holds it."""
        full, small = self.hold()
        small.set()
        ticket = self.ticket(budget_s=budget_s, knobs=knobs)
        self.submit(ticket)
        await full.reached()
        return ticket, full

    async def waiting_stage(self, budget_s: float = 30.0, knobs: Knobs = NO_KNOBS) -> tuple[Ticket, Ticket, Gate]:
        """Return a ticket that waits for its second stage, the one that computes meanwhile, and what holds it."""
        full, small = self.hold()
        ticket = self.ticket(budget_s=budget_s, knobs=knobs)
        self.submit(ticket)
        await small.reached()
        before = self.ticket(budget_s=budget_s * 0.9, knobs=Knobs(variant="full", criticality=Criticality.CRITICAL))
        self.submit(before)
        small.set()
        await full.reached()
        assert ticket.kept is not None
        assert ticket.is_queued
        return ticket, before, full

    def batches(self) -> tuple[int, int]:
        """Return how many runs the full and the small variant have had."""
        return len(self.full.batches), len(self.small.batches)


def value(outputs: tuple[NDArray[Any], ...]) -> float:
    """Return the first class's score in the first row."""
    return float(outputs[0][0, 0])
