from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from service.api.decision_routes import decision_routes
from service.api.http_app import HttpApp
from service.domain.decisions import CandidateVerdict, Decision
from service.domain.inference import Answer, Criticality, Knobs, Reason
from tests.service.api.conftest import ask, content

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.service.api.conftest import Caller, StubPlane

PATH = "/v2/models/digits/decisions"
ANSWER = Answer(
    "small", "quantized", Reason.DOWNGRADED, 0.012, 0.004, 0.008, 0.0125, 0.02, True, 0.9, 2, 0.015, best_accuracy=0.92
)
DECISION = Decision(
    request_id="one",
    protocol="grpc",
    knobs=Knobs(budget_s=0.02, min_accuracy=0.5, criticality=Criticality.CRITICAL),
    rows=2,
    timeout_s=1.0,
    arrived_s=1.5,
    slack_s=0.016,
    queued=4,
    hardware_class="phone",
    answer=ANSWER,
    candidates=(
        CandidateVerdict("full", 0.92, 0.030, "too_slow", "needs 30 ms"),
        CandidateVerdict("small", 0.9, 0.008, "chosen", "downgraded"),
        CandidateVerdict("tiny", 0.7, 0.0, "excluded", "not in memory"),
    ),
)


@dataclass
class StubDecided:
    """Remembers one decision, and how many were asked for."""

    asked: list[tuple[str, int]] = field(default_factory=list)
    known: int = 1
    told: int = 0

    def decisions(self, model: str, last: int) -> Iterator[Decision]:
        self.asked.append((model, last))
        return self._tell()

    def _tell(self) -> Iterator[Decision]:
        for _ in range(self.known):
            self.told += 1
            yield DECISION


@pytest.fixture
def decided() -> StubDecided:
    return StubDecided()


@pytest.fixture
def admin(caller: Caller, plane: StubPlane, decided: StubDecided) -> Caller:
    return type(caller)(HttpApp(plane, admin=True, more=decision_routes(decided)))


async def test_requests_have_their_turn_while_many_decisions_are_told(admin: Caller, decided: StubDecided) -> None:
    decided.known = 1000
    asking = asyncio.create_task(ask(admin, "GET", PATH + "?last=1000"))
    seen = set()
    while not asking.done():
        await asyncio.sleep(0)
        seen.add(decided.told)
    assert len(content(await asking)["decisions"]) == 1000
    assert len(seen) > 50


async def test_decisions_are_told_in_milliseconds_with_only_the_knobs_that_were_said(admin: Caller) -> None:
    answer = await ask(admin, "GET", PATH)
    assert answer.status == 200
    (told,) = content(answer)["decisions"]
    assert told["time"] == "1970-01-01T00:00:01.500+00:00"
    assert told["knobs"] == {"latency_budget_ms": 20.0, "min_accuracy": 0.5, "criticality": "critical"}
    assert (told["variant"], told["reason"], told["queued"], told["slack_ms"]) == ("small", "downgraded", 4, 16.0)
    assert (told["predicted_ms"], told["total_ms"], told["budget_met"]) == (12.0, 12.5, True)
    assert (told["expected_accuracy"], told["best_accuracy"]) == (0.9, 0.92)
    assert [(item["verdict"], item["predicted_compute_ms"]) for item in told["candidates"]] == [
        ("too_slow", 30.0),
        ("chosen", 8.0),
        ("excluded", None),
    ]


@pytest.mark.parametrize(("query", "last"), [("", 10), ("?last=1", 1), ("?last=10000", 10000)])
async def test_as_many_are_told_as_are_asked_for(admin: Caller, decided: StubDecided, query: str, last: int) -> None:
    assert (await ask(admin, "GET", PATH + query)).status == 200
    assert decided.asked == [("digits", last)]


@pytest.mark.parametrize("query", ["last=0", "last=-1", "last=x", "last=", "last=10001", "lost=1", "last=%C2%B2"])
async def test_a_query_that_makes_no_sense_is_refused(admin: Caller, decided: StubDecided, query: str) -> None:
    answer = await ask(admin, "GET", f"{PATH}?{query}")
    assert answer.status == 400
    assert decided.asked == []


async def test_the_public_listener_tells_no_decisions(caller: Caller) -> None:
    answer = await ask(caller, "GET", PATH)
    assert answer.status == 403
    assert "administrative listener" in content(answer)["error"]
