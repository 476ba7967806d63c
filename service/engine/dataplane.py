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
from service.engine.ticket import Ticket
from service.policy.routing import name_reason
from service.policy.scheduling import Waiting

if TYPE_CHECKING:
    from service.domain.inference import InferenceRequest
    from service.domain.observer import Observer
    from service.engine.catalog import Parts
    from service.engine.lanes import Lanes
    from service.engine.loaded import LoadedModel
    from service.engine.ticket import Outcome


class DataPlane(Catalog):
    """Answers requests, and all that the catalog says; every method is called on one event loop."""

    def __init__(self, parts: Parts, lanes: Lanes, observer: Observer) -> None:
        """Wire the parts; they are started and closed by who made them."""
        super().__init__(parts)
        self._lanes = lanes
        self._observer = observer
        self._is_refusing = False
        self._is_first_in_turn = True
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
        arrived_s = self._clock()
        self._enter()
        try:
            self._refuse_if_draining()
            model = self._registry.get(request.model, request.version)
            rows = check_request(model.info, request)
            ticket = self._ticket(request, model, rows, arrived_s)
            outcome = await self._run(ticket)
            response = self._response(ticket, outcome)
        except (Exception, asyncio.CancelledError) as error:
            self._observer.request_refused(request, error, self._clock() - arrived_s)
            raise
        finally:
            self._leave()
        self._observer.request_finished(request, response.answer)
        return response

    def refuse_new(self) -> None:
        """Refuse every request from now on; those inside are finished."""
        self._is_refusing = True

    async def wait_until_idle(self) -> None:
        """Return when no request is inside."""
        await self._idle.wait()

    def _begin_turn(self) -> None:
        self._is_first_in_turn = True

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
        times = {item.name: costs.of(item.name, rows) for item in route.candidates}
        timeout_s = model.rules.timeout_s(request.knobs)
        deadline_s, limit_s = arrived_s + timeout_s, min(route.budget_s, timeout_s)
        waiting = Waiting(
            due_s=min(arrived_s + route.budget_s - self._handover.after_s, deadline_s),
            deadline_s=deadline_s,
            rows=rows,
            candidates=tuple(times),
            batch_key=_batch_key(model, request),
        )
        loop = asyncio.get_running_loop()
        return Ticket(
            request=request,
            model=model,
            route=route,
            waiting=waiting,
            arrived_s=arrived_s,
            fastest_s=min(times.values()),
            fits_idle=frozenset(
                name for name, cost_s in times.items() if self._idle_s(model, name, cost_s, rows) <= limit_s
            ),
            loop=loop,
            thread=threading.get_ident(),
            done=loop.create_future(),
        )

    async def _run(self, ticket: Ticket) -> Outcome:
        job = self._dispatcher.submit(ticket, may_inline=self._is_first_in_turn)
        if job is not None:
            # Requests that came in the same turn of the event loop are better off together, on a lane.
            self._is_first_in_turn = False
            ticket.loop.call_soon(self._begin_turn)
            self._lanes.execute(job)
            if ticket.done.done():
                return ticket.done.result()
            # The run failed; the request waits for a lane now, like any other.
        left_s = ticket.waiting.deadline_s - self._clock()
        timer = ticket.loop.call_later(left_s, self._dispatcher.expire, ticket)
        try:
            outcome = await ticket.done
        except asyncio.CancelledError:
            self._dispatcher.cancel(ticket)
            raise
        finally:
            timer.cancel()
        if ticket.met_idle and not outcome.is_fallback:
            self._handover.observe_before(outcome.started_s - ticket.arrived_s)
        return outcome

    def _response(self, ticket: Ticket, outcome: Outcome) -> InferenceResponse:
        request, model, route = ticket.request, ticket.model, ticket.route
        variant = next(item for item in model.info.variants if item.name == outcome.variant)
        queue_s = outcome.started_s - ticket.arrived_s
        total_s = self._clock() - ticket.arrived_s
        predicted_s = queue_s + outcome.predicted_s + self._handover.after_s
        self._handover.observe_after(total_s - queue_s - outcome.compute_s)
        reason = name_reason(route, variant.name, ticket.fits_idle, is_late=outcome.is_late)
        answer = Answer(
            variant=variant.name,
            tier=variant.tier,
            reason=Reason.FALLBACK if outcome.is_fallback else reason,
            predicted_s=predicted_s,
            queue_s=queue_s,
            compute_s=outcome.compute_s,
            total_s=total_s,
            budget_s=route.budget_s,
            budget_met=total_s <= route.budget_s,
            expected_accuracy=variant.accuracy,
            batch_size=outcome.batch_size,
        )
        tensors = tuple(
            Tensor(spec.name, spec.datatype, data)
            for spec, data in zip(model.info.outputs, outcome.outputs, strict=True)
        )
        if request.outputs:
            by_name = {tensor.name: tensor for tensor in tensors}
            tensors = tuple(by_name[wanted.name] for wanted in request.outputs)
        return InferenceResponse(request.model, model.info.version, request.id, tensors, answer, request)


def _batch_key(model: LoadedModel, request: InferenceRequest) -> object:
    if not model.has_dynamic_shapes:
        return None
    return tuple(sorted((tensor.name, tensor.data.shape[1:]) for tensor in request.inputs))
