"""Tickets and evictions, step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from service.domain.errors import ModelNotReady
from service.domain.inference import Knobs
from service.domain.observer import SilentObserver
from service.engine.dispatcher import Dispatcher
from tests.builders import make_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.engine.loaded import LoadedModel
    from service.engine.ticket import Ticket
    from tests.service.engine.conftest import Bench


class Asked:
    """A loader that loads nothing and remembers what it was asked for."""

    def __init__(self) -> None:
        self.wanted: list[str] = []
        self.missed: list[str] = []

    def bring(self, model: LoadedModel, variant: str) -> None:
        del model
        self.wanted.append(variant)

    def note_demand(self, model: LoadedModel, variant: str) -> None:
        del model
        self.missed.append(variant)


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def dispatcher(asked: Asked) -> Dispatcher:
    found = Dispatcher(1, SilentObserver(), lambda: 0.0)
    found.parking.loader = asked
    return found


@pytest.fixture
def make_choosy(make_ticket: Callable[..., Ticket]) -> Callable[..., Ticket]:
    """Return tickets with these candidates."""

    def make(*candidates: str) -> Ticket:
        ticket = make_ticket()
        ticket.waiting = replace(ticket.waiting, candidates=candidates)
        return ticket

    return make


async def test_what_waits_uses_what_is_left(dispatcher: Dispatcher, make_choosy: Callable[..., Ticket]) -> None:
    ticket = make_choosy("full", "quantized")
    dispatcher.submit(ticket)
    dispatcher.parking.retire(ticket.model, "full")
    assert ticket.waiting.candidates == ("quantized",)
    assert not dispatcher.parking.is_using(ticket.model, ("full",))
    assert dispatcher.parking.is_using(ticket.model, ("quantized",))


async def test_what_can_use_nothing_else_keeps_an_evicted_variant_until_it_has_run(
    dispatcher: Dispatcher, make_choosy: Callable[..., Ticket]
) -> None:
    ticket, parking = make_choosy("full"), dispatcher.parking
    dispatcher.submit(ticket)
    parking.retire(ticket.model, "full")
    assert parking.is_using(ticket.model, ("full",))
    job = dispatcher.take(dispatcher.desk.lanes[0])
    assert job is not None
    assert job.run.variant == "full"
    assert parking.is_using(ticket.model, ("full",))
    dispatcher.finish(job, 0.01)
    assert not parking.is_using(ticket.model, ("full",))


async def test_a_ticket_that_was_routed_before_an_eviction_is_left_what_is_held(
    dispatcher: Dispatcher, asked: Asked, make_choosy: Callable[..., Ticket]
) -> None:
    both, one = make_choosy("full", "quantized"), make_choosy("full")
    both.model.evict("full")
    dispatcher.submit(both)
    dispatcher.submit(one)
    assert (both.is_queued, both.waiting.candidates) == (True, ("quantized",))
    assert (one.is_queued, asked.wanted) == (False, ["full"])


async def test_what_a_failed_run_sends_back_is_parked_too(
    dispatcher: Dispatcher, asked: Asked, make_choosy: Callable[..., Ticket]
) -> None:
    ticket = make_choosy("full")
    ticket.model.evict("full")
    dispatcher.resubmit(ticket)
    assert (ticket.is_queued, asked.wanted) == (False, ["full"])


async def test_who_waits_goes_on_when_one_of_its_variants_is_there(
    dispatcher: Dispatcher, asked: Asked, make_choosy: Callable[..., Ticket]
) -> None:
    ticket = make_choosy("full", "quantized")
    model, backend = ticket.model, ticket.model.backends["quantized"]
    for name in ticket.waiting.candidates:
        model.evict(name)
    dispatcher.submit(ticket)
    assert asked.wanted == ["full"]
    model.restore("quantized", backend, 1.0, 0.0)
    dispatcher.parking.readmit(model)
    assert (ticket.is_queued, ticket.waiting.candidates) == (True, ("quantized",))


async def test_who_waits_for_a_broken_variant_waits_for_the_next_or_is_told(
    dispatcher: Dispatcher, asked: Asked, make_choosy: Callable[..., Ticket]
) -> None:
    two, one = make_choosy("full", "quantized"), make_choosy("full")
    for name in ("full", "quantized"):
        two.model.evict(name)
    dispatcher.submit(two)
    dispatcher.submit(one)
    dispatcher.parking.refuse(two.model, "full", ModelNotReady("broken"))
    assert asked.wanted == ["full", "full", "quantized"]
    with pytest.raises(ModelNotReady, match="broken"):
        await one.done
    assert not two.done.done()


async def test_demand_counts_what_an_idle_machine_would_have_answered_with(bench: Bench) -> None:
    model, asked = bench.model, Asked()
    bench.dispatcher.parking.loader = asked
    model.evict("full")
    for knobs in (Knobs(budget_s=0.05), Knobs(budget_s=0.02), Knobs(variant="quantized")):
        await bench.plane.infer(make_request(knobs=knobs))
    assert asked.missed == ["full"]


async def test_a_variant_between_evicted_and_held_is_still_found(make_ticket: Callable[..., Ticket]) -> None:
    model = make_ticket().model
    model.evict("full")
    model.evicted = frozenset()  # so far has another thread come that restores it
    assert [item.name for item in model.route(Knobs(variant="full"), 0.0).candidates] == ["full"]


async def test_what_is_known_of_a_calm_moment_is_believed(make_ticket: Callable[..., Ticket]) -> None:
    model = make_ticket().model
    backend = model.backends["full"]
    model.corrections["full"].rebase(0.5, 0.0)
    model.evict("full")
    model.restore("full", backend, 3.0, 1.0)
    assert model.corrections["full"].base == 0.5
    assert "full" in model.ready(1.0)
