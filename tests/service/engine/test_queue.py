from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from service.domain.inference import Criticality
from service.engine.ticket import Ticket
from service.policy.deadline_queue import DeadlineQueue

if TYPE_CHECKING:
    from collections.abc import Callable


async def test_queue_serves_by_criticality_then_due_moment_then_arrival(make_ticket: Callable[..., Ticket]) -> None:
    queue = DeadlineQueue[Ticket]()
    order = [
        make_ticket(9.0, Criticality.CRITICAL),
        make_ticket(1.0),
        make_ticket(2.0),
        make_ticket(2.0),
        make_ticket(1.0, Criticality.SHEDDABLE),
    ]
    for index in (4, 2, 0, 3, 1):
        queue.push(order[index])
    assert list(queue) == order
    assert (queue.head, queue.least_important) == (order[0], order[4])


async def test_queue_counts_the_work_that_is_at_least_as_important(make_ticket: Callable[..., Ticket]) -> None:
    queue = DeadlineQueue[Ticket]()
    for criticality in Criticality:
        queue.push(make_ticket(criticality=criticality))
    assert [queue.work_s(number) for number in (0, 1, 2)] == pytest.approx([0.25, 0.5, 0.75])


async def test_queue_takes_out_by_position(make_ticket: Callable[..., Ticket]) -> None:
    queue, tickets = DeadlineQueue[Ticket](), [make_ticket(float(due_s)) for due_s in range(5)]
    for ticket in tickets:
        queue.push(ticket)
    assert queue.take((0, 2, 3)) == [tickets[0], tickets[2], tickets[3]]
    assert queue.take_all() == [tickets[1], tickets[4]]
    assert len(queue) == 0
    assert queue.work_s(2) == pytest.approx(0.0)


async def test_queue_tells_whether_what_it_removes_was_waiting(make_ticket: Callable[..., Ticket]) -> None:
    queue, ticket = DeadlineQueue[Ticket](), make_ticket()
    queue.push(ticket)
    assert [queue.remove(ticket), queue.remove(ticket)] == [True, False]


async def test_queue_sets_late_tickets_behind_everything_that_can_be_on_time(
    make_ticket: Callable[..., Ticket],
) -> None:
    queue = DeadlineQueue[Ticket]()
    late_critical = make_ticket(0.5, Criticality.CRITICAL)
    late, timely = make_ticket(0.5), make_ticket(5.0)
    sheddable = make_ticket(5.0, Criticality.SHEDDABLE)
    for ticket in (late, late_critical, sheddable, timely):
        queue.push(ticket)
    queue.set_late_aside(now_s=1.0)
    assert list(queue) == [timely, sheddable, late_critical, late]
    assert queue.least_important is late


async def test_queue_does_not_count_late_work_as_ahead_of_newcomers(make_ticket: Callable[..., Ticket]) -> None:
    queue = DeadlineQueue[Ticket]()
    queue.push(make_ticket(0.5))
    queue.push(make_ticket(5.0))
    queue.set_late_aside(now_s=1.0)
    assert queue.work_s(1) == pytest.approx(0.25)


async def test_queue_knows_how_much_late_work_waits(make_ticket: Callable[..., Ticket]) -> None:
    queue, now_s = DeadlineQueue[Ticket](), 1.0
    became_late, was_late, timely = make_ticket(0.5), make_ticket(0.5), make_ticket(5.0)
    queue.push(became_late)
    queue.push(timely)
    queue.push(was_late, is_late=True)
    queue.set_late_aside(now_s)
    assert queue.late_count == 2
    assert queue.late_work_s == pytest.approx(0.5)
    queue.remove(was_late)
    queue.remove(timely)
    assert queue.late_count == 1
    assert queue.late_work_s == pytest.approx(0.25)
    queue.take_all()
    assert (queue.late_count, queue.late_work_s) == (0, 0.0)


async def test_queue_finds_the_least_important_among_late_and_timely(make_ticket: Callable[..., Ticket]) -> None:
    queue = DeadlineQueue[Ticket]()
    late_sheddable = make_ticket(0.5, Criticality.SHEDDABLE)
    for ticket in (late_sheddable, make_ticket(0.5, Criticality.CRITICAL), make_ticket(5.0)):
        queue.push(ticket)
    queue.set_late_aside(now_s=1.0)
    assert (queue.least_important, queue.lowest_criticality) == (late_sheddable, 2)


async def test_queue_keeps_its_sums_through_any_sequence(make_ticket: Callable[..., Ticket]) -> None:
    queue, random_, now_s = DeadlineQueue[Ticket](), random.Random(7), 0.0  # noqa: S311 - a repeatable mix, no secret
    inside: list[Ticket] = []
    for _ in range(2000):
        now_s += 0.01
        if inside and random_.random() < 0.5:
            ticket = inside.pop(random_.randrange(len(inside)))
            assert queue.remove(ticket)
        else:
            inside.append(make_ticket(now_s + random_.random(), random_.choice(list(Criticality)), random_.random()))
            queue.push(inside[-1])
        queue.set_late_aside(now_s)
        waiting = list(queue)
        timely = [ticket for ticket in waiting if not ticket.is_late]
        assert waiting == sorted(inside, key=lambda ticket: ticket.order)
        assert queue.work_s(2) == pytest.approx(sum(ticket.fastest_s for ticket in timely))
        counted = [min(ticket.criticality + ticket.is_late, 2) for ticket in inside]
        assert queue.lowest_criticality == max(counted, default=0)
        if inside:
            least = queue.least_important
            assert min(least.criticality + least.is_late, 2) == queue.lowest_criticality


async def test_ticket_ends_once_whatever_comes_after(make_ticket: Callable[..., Ticket]) -> None:
    ticket = make_ticket()
    ticket.fail(ValueError("first"))
    ticket.fail(ValueError("second"))
    with pytest.raises(ValueError, match="first"):
        await ticket.done


async def test_ticket_can_be_ended_from_another_thread(make_ticket: Callable[..., Ticket]) -> None:
    ticket = make_ticket()
    await asyncio.to_thread(ticket.fail, ValueError("from afar"))
    with pytest.raises(ValueError, match="from afar"):
        await ticket.done
