"""The life of a request, told in one function: ``DataPlane.infer``."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from service.domain.errors import Draining
from service.domain.inference import Answer, InferenceResponse, Reason
from service.domain.interface import check_request
from service.domain.tensors import Tensor
from service.engine.catalog import Catalog
from service.engine.prompt import PromptFuture
from service.engine.ticket import Ticket, expired
from service.policy.routing import name_reason
from service.policy.scheduling import Waiting

if TYPE_CHECKING:
    from service.domain.inference import InferenceRequest
    from service.domain.observer import Observer
    from service.domain.variants import Variant
    from service.engine.catalog import Parts
    from service.engine.lanes import Lanes
    from service.engine.loaded import LoadedModel
    from service.engine.ticket import Outcome
    from service.policy.routing import Route


class DataPlane(Catalog):
    """Answers requests, and all that the catalog says; every method is called on one event loop."""

    def __init__(self, parts: Parts, lanes: Lanes, observer: Observer) -> None:
        """Wire the parts; they are started and closed by who made them."""
        super().__init__(parts)
        self._lanes = lanes
        self._observer = observer
        self._turns = parts.dispatcher.loop_turns
        self._is_refusing = False
        self._turn: list[Ticket] = []
        self._answered: list[tuple[Ticket, Outcome, Answer]] = []
        self._is_turn_open = False
        self._expects_more = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.inflight = 0

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """Answer one request with the most accurate variant that meets its budget.

        Cancelling the call frees the request's place.

        Raises:
            ModelNotFound, ModelNotReady, Draining: There is nothing here, or not now, that could answer.
            InvalidRequest, VariantNotFound: The inputs or the knobs do not fit the model.
            DeadlineExceeded: The hard deadline passed or cannot be met.
            Overloaded: Refused for load.
            BackendFailed: The runtime failed on this request.
        """
        arrived_s = self._turns.came_s(self._clock())
        self._enter()
        try:
            self._refuse_if_draining()
            model = self._registry.get(request.model, request.version)
            rows = check_request(model.info, request)
            ticket = self._ticket(request, model, rows, arrived_s)
            outcome = await self._run(ticket)
            response = self._response(ticket, outcome)
        except (Exception, asyncio.CancelledError) as error:
            now_s = self._clock()
            self._turns.resume(now_s)
            self._observer.request_refused(request, error, now_s - arrived_s)
            raise
        finally:
            self._leave()
        if not self._answered:
            ticket.done.get_loop().call_soon(self._tell_answered)
        self._answered.append((ticket, outcome, response.answer))
        return response

    def refuse_new(self) -> None:
        """Refuse every request from now on; those inside are finished."""
        self._is_refusing = True

    async def wait_until_idle(self) -> None:
        """Return when no request is inside, and of every answer was told."""
        await self._idle.wait()
        self._tell_answered()  # the last ones' turn may come after this one

    def _tell_answered(self) -> None:
        """Tell of what was answered in this turn of the event loop.

        Told one by one, between other work, each would find what telling needs gone from the processor's caches, and
        take three times as long; and here no answer waits for it.
        """
        answered, self._answered = self._answered, []
        for ticket, outcome, answer in answered:
            self._decisions.note(ticket, answer)
            self._observer.request_finished(ticket.request, answer)
            on_answer = ticket.model.on_answer  # another thread may take it away
            if on_answer is not None:
                on_answer(ticket, outcome)

    def _end_turn(self) -> None:
        """Compute what gathered in this turn of the event loop; what is left waits for a lane, until its deadline."""
        tickets, self._turn, self._is_turn_open = self._turn, [], False
        self._expects_more = len(tickets) > 1
        for ticket in tickets:
            if ticket.done.cancelled():
                self._dispatcher.cancel(ticket)
        job = self._dispatcher.take_gathered()
        try:
            if job is not None:
                self._lanes.execute(job)
        finally:
            for ticket in tickets:
                if not ticket.done.done() and ticket.timer is None:
                    left_s = ticket.waiting.deadline_s - self._clock()
                    ticket.timer = ticket.done.get_loop().call_later(left_s, self._dispatcher.expire, ticket)

    def _refuse_if_draining(self) -> None:
        if self._is_refusing:
            raise Draining("the server is shutting down")

    def _enter(self) -> None:
        self.inflight += 1
        self._idle.clear()

    def _leave(self) -> None:
        self.inflight -= 1
        if not self.inflight:
            self._idle.set()

    def _ticket(self, request: InferenceRequest, model: LoadedModel, rows: int, arrived_s: float) -> Ticket:
        route = model.route(request.knobs, arrived_s)
        costs = model.costs(arrived_s)
        is_pressed = arrived_s < self._turns.pressed_until_s
        timeout_s = model.rules.timeout_s(request.knobs)
        within_s = min(route.budget_s, timeout_s)
        waiting = Waiting(
            due_s=arrived_s + within_s - self._handover.set_aside_s(within_s, is_pressed=is_pressed),
            deadline_s=arrived_s + timeout_s,
            rows=rows,
            candidates=route.names,
            batch_key=_batch_key(model, request),
            aside_s=self._handover.set_aside_s(timeout_s, is_pressed=is_pressed),
            criticality=request.knobs.criticality,
        )
        done: PromptFuture[Outcome] = PromptFuture(asyncio.get_running_loop())
        thread = threading.get_ident()
        return Ticket(request, model, route, waiting, costs, arrived_s, costs.fastest_s(waiting), thread, done)

    async def _run(self, ticket: Ticket) -> Outcome:
        # Requests that come in the same turn of the event loop are computed together, at its end. The first one goes
        # ahead at once where the last turn brought no other: a lone client's request should wait for nobody.
        gathers = self._is_turn_open or self._expects_more
        if not self._is_turn_open:
            self._is_turn_open = True
            ticket.done.get_loop().call_soon(self._end_turn)
        job = self._dispatcher.submit(ticket, gathers=gathers)
        self._turn.append(ticket)
        if job is not None:
            self._lanes.execute(job)
            if ticket.done.done():
                return ticket.done.result()
            # The run failed; the request waits for a lane now, like any other.
        try:
            outcome = await ticket.done
        except asyncio.CancelledError:
            self._dispatcher.cancel(ticket)
            raise
        finally:
            if ticket.timer is not None:
                ticket.timer.cancel()
        if ticket.met_idle and ticket.timer is not None and not outcome.is_fallback:  # it went through a lane
            self._handover.observe_before(outcome.started_s - ticket.arrived_s)
        return outcome

    def _response(self, ticket: Ticket, outcome: Outcome) -> InferenceResponse:
        request, model, route = ticket.request, ticket.model, ticket.route
        variant = _named(route, outcome.variant)
        queue_s = outcome.started_s - ticket.arrived_s
        now_s = self._clock()
        self._turns.resume(now_s)
        total_s = now_s - ticket.arrived_s
        if now_s > ticket.waiting.deadline_s:  # a run on this thread has no timer that could end it before
            self._observer.request_expired(request.model, was_running=True)
            raise expired(ticket)
        typical_s = outcome.predicted_s + self._handover.typical_after_s(outcome.batch_size)
        claim = model.claims[variant.name]
        claimed_s = queue_s + claim.factor * typical_s
        if ticket.kept is None:  # else it waited between two stages
            self._handover.observe_after(total_s - queue_s - outcome.compute_s, outcome.batch_size)
            claim.observe(total_s - queue_s, typical_s)
        reason, best_accuracy = self._reason(ticket, outcome)
        answer = Answer(
            variant=variant.name,
            tier=variant.tier,
            reason=reason,
            predicted_s=queue_s + typical_s,
            queue_s=queue_s,
            compute_s=outcome.compute_s,
            total_s=total_s,
            budget_s=route.budget_s,
            budget_met=total_s <= route.budget_s,
            expected_accuracy=outcome.plan.accuracy if outcome.plan else variant.accuracy,
            batch_size=outcome.batch_size,
            claimed_s=claimed_s,
            cascade=_stage(ticket, outcome) if outcome.plan else "",
            best_accuracy=best_accuracy,
            runs=outcome.runs,
        )
        pairs = zip(model.info.outputs, outcome.outputs, strict=True)
        tensors = tuple([Tensor(spec.name, spec.datatype, data) for spec, data in pairs])
        if request.outputs:
            by_name = {tensor.name: tensor for tensor in tensors}
            tensors = tuple(by_name[wanted.name] for wanted in request.outputs)
        return InferenceResponse(request.model, model.info.version, request.id, tensors, answer, request)

    def _reason(self, ticket: Ticket, outcome: Outcome) -> tuple[Reason, float]:
        """Return why the variant answers, and the accuracy of the best that keeps the budget on an idle machine."""
        route, best = ticket.route, self._best_when_idle(ticket)
        best_accuracy = best.accuracy if best else 0.0
        if outcome.is_fallback:
            return Reason.FALLBACK, best_accuracy
        if outcome.is_cascaded and not route.is_pinned:
            return Reason.CASCADED, best_accuracy
        best_name = best.name if best else None
        return name_reason(route, outcome.variant, best_name, is_late=outcome.is_late), best_accuracy

    def _best_when_idle(self, ticket: Ticket) -> Variant | None:
        """Return the most accurate candidate that the objective takes and that keeps the budget on an idle machine."""
        model, rows, costs = ticket.model, ticket.waiting.rows, ticket.costs
        limit_s = min(ticket.route.budget_s, ticket.waiting.deadline_s - ticket.arrived_s)
        wanted = model.wanted(ticket.waiting, costs) if model.policy.is_thrifty else None
        for item in ticket.route.candidates:  # most accurate first
            if wanted is not None and item.name not in wanted:
                continue
            if self._idle_s(model, item.name, costs.of(item.name, rows), rows) <= limit_s:
                return item
        return None


def _stage(ticket: Ticket, outcome: Outcome) -> str:
    if outcome.is_cascaded:
        return "escalated"
    return "sure" if ticket.kept is None else "settled"


def _named(route: Route, name: str) -> Variant:
    for item in route.candidates:  # a few at most
        if item.name == name:
            return item
    raise LookupError(name)


def _batch_key(model: LoadedModel, request: InferenceRequest) -> object:
    if not model.has_dynamic_shapes:
        return None
    return tuple(sorted((tensor.name, tensor.data.shape[1:]) for tensor in request.inputs))
