"""Races at the end of a ticket, taken one step at a time."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from service.domain.errors import DeadlineExceeded, Draining
from service.engine.dispatcher import Dispatcher
from service.engine.ticket import Outcome, deliver
from tests.service.engine.conftest import Events, ManualClock, lanes_wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.engine.ticket import Ticket


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def dispatcher(events: Events, manual_clock: ManualClock) -> Dispatcher:
    manual_clock.now_s = 0.0
    return Dispatcher(1, events, manual_clock)


async def test_a_dropped_ticket_is_not_counted_again_when_its_timer_fires(
    dispatcher: Dispatcher, events: Events, manual_clock: ManualClock, make_ticket: Callable[..., Ticket]
) -> None:
    ticket = make_ticket(1.0)
    dispatcher.submit(ticket)
    manual_clock.now_s = 1.99  # the deadline is at 2, its only candidate takes 30 ms
    assert dispatcher._choose(ticket.model, dispatcher.desk.lanes[0]) is None
    dispatcher.expire(ticket)
    assert events.expired == ["waiting"]
    with pytest.raises(DeadlineExceeded):
        await ticket.done


async def test_an_answered_ticket_is_not_expired_by_a_timer_that_fires_at_the_same_moment(
    dispatcher: Dispatcher, events: Events, make_ticket: Callable[..., Ticket]
) -> None:
    ticket = make_ticket()
    outcome = Outcome("full", (), 0.0, 0.0, 0.0, 1, is_late=False, is_fallback=False)
    deliver([(ticket, outcome)])
    dispatcher.expire(ticket)
    assert events.expired == []
    assert await ticket.done is outcome


async def test_outcomes_of_another_thread_are_told_one_after_the_other_at_once(
    make_ticket: Callable[..., Ticket],
) -> None:
    first, second = make_ticket(), make_ticket()
    outcome = Outcome("full", (), 0.0, 0.0, 0.0, 1, is_late=False, is_fallback=False)
    heard: list[bool] = []
    first.done.tell(lambda _: heard.append(second.done.done()))
    await asyncio.to_thread(deliver, [(first, outcome), (second, outcome)])
    assert await second.done is outcome
    assert heard == [False]


@pytest.mark.parametrize("end", [Dispatcher.cancel, Dispatcher.expire])
async def test_a_failed_ticket_does_not_wait_again_when_its_end_came_first(
    dispatcher: Dispatcher, make_ticket: Callable[..., Ticket], end: Callable[[Dispatcher, Ticket], None]
) -> None:
    ticket = make_ticket()
    end(dispatcher, ticket)
    dispatcher.resubmit(ticket)
    assert dispatcher.depths() == {}
    ticket.done.cancel()


async def test_a_failed_ticket_ends_when_the_dispatcher_is_closed(
    dispatcher: Dispatcher, make_ticket: Callable[..., Ticket]
) -> None:
    ticket = make_ticket()
    dispatcher.close()
    dispatcher.resubmit(ticket)
    with pytest.raises(Draining):
        await ticket.done


async def test_a_closed_dispatcher_gives_lanes_nothing_and_lets_nobody_in(
    dispatcher: Dispatcher, make_ticket: Callable[..., Ticket]
) -> None:
    waiting = make_ticket(5.0)
    dispatcher.submit(waiting)
    dispatcher.close()
    assert dispatcher.take(dispatcher.desk.lanes[0]) is None
    with pytest.raises(Draining):
        dispatcher.submit(make_ticket())
    with pytest.raises(Draining):
        await waiting.done


async def test_wait_is_the_queued_and_the_running_work(
    dispatcher: Dispatcher, manual_clock: ManualClock, make_ticket: Callable[..., Ticket]
) -> None:
    dispatcher.submit(make_ticket(5.0))
    job = dispatcher.take(dispatcher.desk.lanes[0])
    assert job is not None
    dispatcher.submit(make_ticket(5.0))
    manual_clock.now_s = 0.01
    assert dispatcher.wait_s() == pytest.approx(0.25 + job.run.predicted_s - 0.01)
    dispatcher.finish(job, 0.01)
    assert dispatcher.wait_s() == pytest.approx(0.25)
    assert dispatcher.desk.lanes[0].busy_s == pytest.approx(0.01)


async def test_a_ticket_that_does_not_gather_wakes_lanes_for_those_that_did(
    events: Events, manual_clock: ManualClock, make_ticket: Callable[..., Ticket]
) -> None:
    manual_clock.now_s = 0.0
    dispatcher, taken = Dispatcher(2, events, manual_clock, inline_s=1.0), list[object]()
    threads = [
        threading.Thread(target=lambda lane=lane: taken.append(dispatcher.take(lane)), daemon=True)
        for lane in dispatcher.desk.lanes
    ]
    for thread in threads:
        thread.start()
    lanes_wait(dispatcher)
    first = make_ticket(10.0)
    second = make_ticket(10.0)
    second.model = first.model
    assert dispatcher.submit(first, gathers=True) is None
    assert dispatcher.submit(second, gathers=False) is None
    for thread in threads:
        await asyncio.to_thread(thread.join, 60.0)
    assert len(taken) == 2
