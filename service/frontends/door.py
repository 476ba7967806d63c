"""The door before the decoders: what the event loop reads too late is turned away at the price of a glance.

``policy.door`` says who; here is where the loop's turns are measured, what a glance can know (the path or the message's
first field, and the headers), and what is written. An answer that is made anew for each request would cost as much as
serving it, so the bytes are ready, and what was turned away is reported by number, once in a while.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

from service.api.grpc_errors import grpc_status
from service.api.http_errors import error_reply
from service.domain.errors import Overloaded
from service.domain.inference import Criticality
from service.frontends.sockets import unread_s
from service.policy.crowd import Prospect
from service.policy.door import LEAST_WAIT_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from service.frontends.plain_request import PlainHead
    from service.policy.door import Turns

    OnTurnedAway = Callable[[str, Mapping[Criticality, int]], None]

TURNED_AWAY: Final = Overloaded("more requests come than can be read in time; this one was not looked at", 1.0)
_CRITICALITIES: Final = {level.name.lower().encode(): level for level in Criticality}
_REPORT_EVERY_S: Final = 1.0
_MODEL_NAME_FIELD: Final = 0x0A
_MOST_NAME_BYTES: Final = 127
_TIMEOUT_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


class Ahead(Protocol):
    """What a request would find behind the door; ``name`` is what the client wrote: a model, perhaps with a variant."""

    def is_crowded(self) -> bool:
        """Tell whether some may have to stay outside."""
        ...

    def prospect(self, name: str, budget_s: float, waited_s: float, criticality: Criticality) -> Prospect:
        """Tell what a request for a model, of a budget and having waited so long, may hope for."""
        ...

    def give_way(self, now_s: float) -> bool:
        """Let go of the interpreter for whom it should be now; tell whether there was anybody."""
        ...

    def lose(self, name: str, count: int = 1) -> None:
        """Count requests for a model that were turned away because they would have been late behind others."""
        ...


class _Nobody:
    """Nobody is ahead."""

    def is_crowded(self) -> bool:
        return False

    def prospect(self, *_: object) -> Prospect:
        return Prospect.TIMELY

    def give_way(self, _: float) -> bool:
        return False

    def lose(self, *_: object) -> None:
        pass


@dataclass(slots=True)
class _Refused:
    """What was turned away last in this turn, and how often its like since: that has waited longer still.

    A client's head comes again and again, and what was read of it is kept; so its headers are the same object. Of a
    request that came as a whole, ``head`` and ``size`` in bytes are kept too, with the ``answer``: another one of that
    head and size need not be looked into.
    """

    protocol: str
    model: bytes
    headers: Mapping[bytes, bytes]
    budget_s: float
    criticality: Criticality
    is_lost: bool
    count: int = 0
    head: bytes = b""
    size: int = -1
    answer: bytes = b""

    def is_like(self, *asked: object) -> bool:
        """Tell whether a request of this protocol, model, budget and criticality is like it."""
        return asked == (self.protocol, self.model, self.budget_s, self.criticality)


class Door:
    """Stands before one gateway's listeners, on the thread of their event loop.

    Args:
        turns: Measures the loop.
        clock: The engine's.
        budget_of: The default budget of a model, by its name as clients write it; '' or unknown: of any.
        on_turned_away: Hears of a protocol's refusals by criticality, a second later, or when ``report`` is called.
        ahead: Knows who would be late even if it was let in; ``None``: nobody.
    """

    def __init__(
        self,
        turns: Turns,
        clock: Callable[[], float],
        budget_of: Callable[[str], float],
        on_turned_away: OnTurnedAway,
        ahead: Ahead | None = None,
    ) -> None:
        self.clock = clock
        self._turns = turns
        self._budget_of = budget_of
        self._on_turned_away = on_turned_away
        self._ahead: Ahead = ahead or _Nobody()
        self._is_crowded = False
        self._stands_open = False
        self._last: _Refused | None = None
        self._counts: dict[str, dict[Criticality, int]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def read(self, new: asyncio.BaseTransport | None = None) -> None:
        """Note that bytes are read, or a connection taken, now.

        ``new`` is the connection whose first bytes they are: it waited to be taken, one in each turn, and only the
        kernel knows since when.
        """
        now_s, turns = self.clock(), self._turns
        is_first = not turns.is_open
        if is_first:
            turns.begin(now_s)
            asyncio.get_running_loop().call_soon(self._end_turn)
        if now_s < turns.pressed_until_s and self._ahead.give_way(now_s):
            now_s = self.clock()
        turns.more_s = 0.0 if new is None else unread_s(new)
        if is_first:
            self._is_crowded = self._ahead.is_crowded()

    def wrote(self) -> None:
        """Note that an answer was written: the loop works, reading or not."""
        self._turns.work(self.clock())

    def let_all_in(self) -> None:
        """Turn nobody away any more: a server that leaves says so, and a client told to come again would do so here."""
        self._stands_open = True
        self._forget_last()

    def turns_away(self, protocol: str, model: bytes, headers: Mapping[bytes, bytes]) -> bool:
        """Tell whether a request that is read now must go, and count it then; header names are lower-case."""
        if self._stands_open:
            return False
        last = self._last
        if last is not None and headers is last.headers and model == last.model:
            last.count += 1
            return True
        now_s = self.clock()
        waited_s = self._turns.waited_s(now_s)
        if waited_s <= LEAST_WAIT_S and not self._is_crowded:
            return False
        criticality = _CRITICALITIES.get(headers.get(b"x-criticality", b"").lower(), Criticality.NORMAL)
        name = model.decode("latin-1")
        budget_s = self._budget_s(name.partition("--")[0], headers)
        if last is not None and last.is_like(protocol, model, budget_s, criticality):
            last.count += 1
            return True
        hope = Prospect.TIMELY
        if self._is_crowded:
            hope = self._ahead.prospect(name, budget_s, waited_s, criticality)
        enters = self._turns.may_enter(now_s, budget_s, criticality)
        if enters and hope is Prospect.TIMELY:
            return False
        if not enters or hope is Prospect.BEHIND:  # whom not even an idle lane can help leaves the others no less time
            self._turns.press(now_s)
        self._count(protocol, criticality)
        if hope is Prospect.BEHIND:
            self._ahead.lose(name)
        if not self._turns.more_s:
            self._forget_last()
            self._last = _Refused(protocol, model, headers, budget_s, criticality, is_lost=hope is Prospect.BEHIND)
        return True

    def refuse_again(self, data: bytes) -> bytes | None:
        """Return the answer that turns away what is, but for its body, the whole request turned away last in this turn.

        It is for a connection that carried such a request before: of what it sends nothing else is known.
        """
        last = self._last
        if last is None or len(data) != last.size or not data.startswith(last.head):
            return None
        last.count += 1
        return last.answer

    def refuse_whole(
        self, head: PlainHead, data: bytes, default_headers: Sequence[tuple[bytes, bytes]]
    ) -> bytes | None:
        """Return the answer that turns away a plain infer request, ``data`` as a whole; ``None`` if it may go on."""
        if not self.turns_away("http", head.model, head.headers):
            return None
        answer, last = http_refusal(tuple(default_headers)), self._last
        if last is not None and last.headers is head.headers:
            last.head, last.size, last.answer = data[: head.size], len(data), answer
        return answer

    def _forget_last(self) -> None:
        self._count_last()
        self._last = None

    def _count_last(self) -> None:
        last = self._last
        if last is None or not last.count:
            return
        count, last.count = last.count, 0
        self._count(last.protocol, last.criticality, count)
        if last.is_lost:
            self._ahead.lose(last.model.decode("latin-1"), count)

    def _budget_s(self, name: str, headers: Mapping[bytes, bytes]) -> float:
        """Return within which time the request wants its answer, as far as a glance tells."""
        budget_s = _milliseconds(headers.get(b"x-latency-budget-ms"))
        if budget_s == math.inf:
            budget_s = self._budget_of(name)
        timeout_s = _milliseconds(headers.get(b"x-request-timeout-ms"))
        return min(budget_s, timeout_s, _grpc_timeout_s(headers.get(b"grpc-timeout")))

    def _count(self, protocol: str, criticality: Criticality, count: int = 1) -> None:
        counts = self._counts.setdefault(protocol, {})
        counts[criticality] = counts.get(criticality, 0) + count
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_REPORT_EVERY_S, self.report)

    def report(self) -> None:
        """Tell what was turned away since it was last told."""
        self._count_last()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        counts, self._counts = self._counts, {}
        for protocol, by_criticality in counts.items():
            self._on_turned_away(protocol, by_criticality)

    def _end_turn(self) -> None:
        self._turns.end(self.clock())
        self._forget_last()


def model_of_message(message: bytes | bytearray) -> bytes:
    """Return the model that a ``ModelInferRequest`` names, if it does so first and shortly, as encoders do."""
    if len(message) < 2 or message[0] != _MODEL_NAME_FIELD or message[1] > _MOST_NAME_BYTES:  # noqa: PLR2004 - its head
        return b""
    return bytes(message[2 : 2 + message[1]])


@lru_cache(maxsize=4)
def http_refusal(default_headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Return the answer that turns a request away; the connection goes on. The date in it changes once a second."""
    reply = error_reply(TURNED_AWAY, "")
    lines = b"".join([b"%b: %b\r\n" % line for line in (*default_headers, *reply.headers)])
    return b"HTTP/1.1 %d \r\n%b\r\n%b" % (reply.status, lines, reply.body)


def grpc_refusal() -> list[tuple[bytes, bytes]]:
    """Return the trailers that turn a call away."""
    status = grpc_status(TURNED_AWAY, "")
    pairs = [(b"grpc-status", b"%d" % status.code.value[0]), (b"grpc-message", status.message.encode())]
    return pairs + [(name.encode(), value.encode()) for name, value in status.metadata]


def _milliseconds(text: bytes | None) -> float:
    """Return a header's time in seconds, infinite where it says none that could be kept; decoding will say why."""
    if text is None:
        return math.inf
    try:
        value = float(text)
    except ValueError:
        return math.inf
    return value / 1e3 if value > 0 else math.inf


def _grpc_timeout_s(text: bytes | None) -> float:
    if text is None or not text[:-1].isdigit():
        return math.inf
    return float(text[:-1]) * _TIMEOUT_UNITS.get(text[-1:], math.inf)
