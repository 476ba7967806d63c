"""A model as routing sees it once drift has spoken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.domain.errors import InvalidRequest, ModelNotReady
from service.domain.inference import NO_KNOBS, ClientHardware, Knobs
from service.domain.policy_file import ModelPolicy, PolicyFile
from service.domain.verdicts import Verdict
from service.policy.judged import judge
from service.policy.routing import Rules, choose_route
from tests.builders import make_model, make_variant

FULL = make_variant("full", 0.92, 0.030)
QUANTIZED = make_variant("quantized", 0.915, 0.009)
PRUNED = replace(make_variant("pruned", 0.91, 0.010, is_routable=False), dominated_by="quantized")
DISTILLED = replace(make_variant("distilled", 0.86, 0.002), memory_bytes=1000)
MODEL = make_model((FULL, QUANTIZED, PRUNED, DISTILLED))
OUT = Verdict("quarantined", is_out=True, why="proven")


def candidates(verdicts: dict[str, Verdict], knobs: Knobs = NO_KNOBS, policy: ModelPolicy | None = None) -> list[str]:
    policy = policy or ModelPolicy()
    rules = Rules(policy, PolicyFile().hardware_classes, 60.0)
    names = {item.name for item in MODEL.variants}
    return [item.name for item in choose_route(judge(MODEL, verdicts, policy), knobs, rules, names).candidates]


def test_device_that_only_quarantined_variants_suit_is_answered_by_the_others() -> None:
    small = Knobs(hardware=ClientHardware(memory_bytes=DISTILLED.memory_bytes))
    assert candidates({}, small) == ["distilled"]
    assert candidates({"distilled": OUT}, small) == ["full", "quantized"]
    with pytest.raises(InvalidRequest, match="suits no variant"):  # it never had one
        candidates({"distilled": OUT}, Knobs(hardware=ClientHardware(memory_bytes=1)))


def test_floor_that_only_doubted_variants_claimed_to_reach_is_the_models_state_and_no_mistake() -> None:
    verdicts = {"full": Verdict("demoted", accuracy=0.7), "quantized": OUT}
    assert candidates(verdicts, Knobs(min_accuracy=0.8)) == ["pruned", "distilled"]
    with pytest.raises(ModelNotReady, match=r"cannot promise min_accuracy 0\.912 now: drift doubts full, quantized"):
        candidates(verdicts, Knobs(min_accuracy=0.912))
    with pytest.raises(InvalidRequest, match="above every variant"):
        candidates(verdicts, Knobs(min_accuracy=0.99))


def test_model_without_verdicts_is_the_model() -> None:
    assert judge(MODEL, {}, ModelPolicy()) is MODEL


def test_quarantined_variant_is_no_candidate_and_what_it_dominated_is() -> None:
    assert candidates({"quantized": OUT}) == ["full", "pruned", "distilled"]


def test_quarantined_variant_still_answers_who_pins_it() -> None:
    assert candidates({"quantized": OUT}, Knobs(variant="quantized")) == ["quantized"]


def test_demoted_variant_stands_where_its_estimate_is() -> None:
    assert candidates({"quantized": Verdict("demoted", accuracy=0.5)}) == ["full", "distilled", "quantized"]
    assert candidates({"quantized": Verdict("demoted", accuracy=0.5)}, Knobs(min_accuracy=0.8)) == ["full", "distilled"]


def test_warned_variant_is_routed_as_before() -> None:
    assert candidates({"quantized": Verdict("warned", why="suspicion")}) == candidates({})


def test_full_answers_where_all_smaller_ones_are_quarantined() -> None:
    assert candidates(dict.fromkeys(("quantized", "pruned", "distilled"), OUT)) == ["full"]


def test_variant_that_could_not_be_loaded_keeps_no_other_from_being_spared() -> None:
    out = dict.fromkeys(("quantized", "pruned", "distilled"), OUT)
    judged = judge(MODEL, out, ModelPolicy(), loaded=("quantized", "distilled"))
    assert [item.name for item in judged.variants if item.is_routable] == ["full", "quantized"]


@pytest.mark.parametrize("allowed", [(), ("quantized", "distilled")])
def test_most_accurate_variant_stays_where_everything_that_may_answer_would_be_out(allowed: tuple[str, ...]) -> None:
    policy = ModelPolicy(variants=allowed)
    out = dict.fromkeys((item.name for item in MODEL.variants), OUT)
    assert candidates(out, policy=policy) == [allowed[0] if allowed else "full"]
