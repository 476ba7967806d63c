"""What a request may ask and what comes back: one set of cases, sent by five clients to both frontends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.clients import ASKERS, Question
from tests.integration.gateway_process import ROOMY_MS, TIGHT_MS

if TYPE_CHECKING:
    from tests.integration.gateway_process import GatewayProcess

ROOMY, TIGHT = {"latency_budget_ms": ROOMY_MS}, {"latency_budget_ms": TIGHT_MS}
TIGHT_HEADER = {"x-latency-budget-ms": str(TIGHT_MS)}

# (what is asked, who must answer, and why)
ANSWERED = {
    "roomy budget": (Question(parameters=ROOMY), "full", "within_budget"),
    "tight budget": (Question(parameters=TIGHT), "quantized", "within_budget"),
    "budget as text": (Question(parameters={"latency_budget_ms": str(TIGHT_MS)}), "quantized", "within_budget"),
    "budget as header": (Question(headers=TIGHT_HEADER), "quantized", "within_budget"),
    "parameter wins over header": (Question(parameters=ROOMY, headers=TIGHT_HEADER), "full", "within_budget"),
    "budget that nobody keeps": (Question(parameters={"latency_budget_ms": 0.001}), "", "late"),
    "floor wins over budget": (Question(parameters=TIGHT | {"min_accuracy": 0.92}), "full", "accuracy_floor"),
    "floor that the budget allows": (
        Question(parameters=TIGHT | {"min_accuracy": 0.915}),
        "quantized",
        "within_budget",
    ),
    "pin": (Question(parameters={"variant": "distilled"}), "distilled", "pinned"),
    "pin in the name": (Question(model="sums--distilled"), "distilled", "pinned"),
    "tier": (Question(parameters={"tier": "quantized"}), "quantized", "pinned"),
    "hardware class": (Question(parameters=ROOMY | {"client_hardware": "mobile"}), "distilled", "hardware"),
    "hardware header": (
        Question(parameters=ROOMY, headers={"x-client-hardware": "mobile"}),
        "distilled",
        "hardware",
    ),
    "hardware as JSON": (
        Question(parameters=TIGHT | {"client_hardware": '{"accelerator": "webgpu"}'}),
        "distilled",
        "within_budget",
    ),
    "browser hint": (Question(parameters=ROOMY, headers={"sec-ch-ua-mobile": "?1"}), "distilled", "hardware"),
    "version": (Question(version="1", parameters=TIGHT), "quantized", "within_budget"),
    "rows": (Question(shape=(8, 4), parameters={"tier": "quantized"}), "quantized", "pinned"),
    "roomy timeout": (Question(parameters=ROOMY, timeout_us=900_000_000), "full", "within_budget"),
}

# (what is asked, the kind of refusal, and what its message names)
REFUSED = {
    "unknown model": (Question(model="absent"), "not_found", "model 'absent'"),
    "unknown version": (Question(version="7"), "not_found", "version '7'"),
    "unknown variant": (Question(parameters={"variant": "absent"}), "not_found", "variant 'absent'"),
    "unknown variant in the name": (Question(model="sums--absent"), "not_found", "variant 'absent'"),
    "unknown tier": (Question(parameters={"tier": "pruned"}), "not_found", "tier 'pruned'"),
    "unknown class": (Question(parameters={"client_hardware": "toaster"}), "invalid", "toaster"),
    "floor above all": (Question(parameters={"min_accuracy": 0.99}), "invalid", "min_accuracy 0.99"),
    "floor of two": (Question(parameters={"min_accuracy": 2}), "invalid", "min_accuracy"),
    "budget zero": (Question(parameters={"latency_budget_ms": 0}), "invalid", "latency_budget_ms"),
    "budget negative": (Question(parameters={"latency_budget_ms": -1}), "invalid", "latency_budget_ms"),
    "budget infinite": (Question(parameters={"latency_budget_ms": "inf"}), "invalid", "latency_budget_ms"),
    "budget of years": (Question(parameters={"latency_budget_ms": 1e12}), "invalid", "latency_budget_ms"),
    "budget boolean": (Question(parameters={"latency_budget_ms": True}), "invalid", "latency_budget_ms"),
    "criticality unknown": (Question(headers={"x-criticality": "utmost"}), "invalid", "x-criticality"),
    "wrong input": (Question(input_name="z"), "invalid", "input 'z'"),
    "wrong shape": (Question(shape=(1, 5)), "invalid", r"shape [1, 5]"),
    "wrong rank": (Question(shape=(4,)), "invalid", r"shape [4]"),
    "wrong datatype": (Question(datatype="FP64"), "invalid", "datatype FP64"),
    "too many rows": (Question(shape=(9, 4)), "invalid", "9 rows"),
    "infeasible deadline": (Question(parameters={"tier": "full"}, timeout_us=1000), "deadline", "deadline"),
}


@pytest.mark.parametrize("client", ASKERS)
@pytest.mark.parametrize("case", ANSWERED)
def test_question_is_answered_by_the_right_variant(gateway: GatewayProcess, client: str, case: str) -> None:
    question, variant, reason = ANSWERED[case]
    reply = ASKERS[client](gateway, question)
    assert not reply.refused, reply.message
    assert reply.sums == (4.0,) * question.shape[0]
    assert reply.answer["reason"] == reason
    assert reply.answer["variant"] in ((variant,) if variant else ("quantized", "distilled"))
    assert float(reply.answer["queue_ms"]) + float(reply.answer["compute_ms"]) <= float(reply.answer["total_ms"]) + 0.01
    assert float(reply.answer["expected_accuracy"]) in (0.92, 0.915, 0.86)
    by_header = question.headers.get("x-latency-budget-ms", ROOMY_MS)
    budget_ms = float(question.parameters.get("latency_budget_ms", by_header))
    if "hardware" not in case:  # there the budget may be the class's own
        assert reply.answer["budget_met"] is (float(reply.answer["total_ms"]) <= budget_ms)


@pytest.mark.parametrize("client", ASKERS)
@pytest.mark.parametrize("case", REFUSED)
def test_question_is_refused_with_its_reason(gateway: GatewayProcess, client: str, case: str) -> None:
    question, kind, named = REFUSED[case]
    reply = ASKERS[client](gateway, question)
    assert (reply.refused, named in reply.message) == (kind, True), reply
