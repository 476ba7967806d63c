from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.errors import InvalidRequest, ModelNotReady, VariantNotFound
from service.domain.inference import NO_KNOBS, ClientHardware, Knobs, Reason
from service.domain.policy_file import HardwareClass, HardwareMatch, ModelPolicy
from service.policy.routing import Route, Rules, choose_route, name_reason
from tests.builders import LADDER, make_model, make_variant

if TYPE_CHECKING:
    from service.domain.variants import ModelInfo

CLASSES = {
    "phone": HardwareClass(
        tiers=("pruned-quantized", "distilled-quantized"),
        default_budget_ms=40,
        match=HardwareMatch(is_mobile=True),
    ),
    "desktop": HardwareClass(),
    "exotic": HardwareClass(tiers=("distilled",)),
}
RULES = Rules(ModelPolicy(default_budget_ms=100), CLASSES, max_timeout_s=60.0)
ALL = frozenset(variant.name for variant in LADDER)


def route(knobs: Knobs = NO_KNOBS, rules: Rules = RULES, ready: frozenset[str] = ALL, **model: Any) -> Route:  # noqa: ANN401
    return choose_route(make_model(**model), knobs, rules, ready)


def names(found: Route) -> list[str]:
    return [variant.name for variant in found.candidates]


def test_route_without_knobs_offers_every_variant_with_the_models_budget_and_the_servers_timeout() -> None:
    found = route()
    assert names(found) == ["full", "quantized", "pruned-quantized", "distilled-quantized"]
    assert (found.budget_s, RULES.timeout_s(NO_KNOBS), found.hardware_class) == (0.1, 60.0, "")
    assert (found.is_pinned, found.is_floored, found.is_narrowed_by_hardware) == (False, False, False)


def test_route_offers_the_most_accurate_first_whatever_the_models_order() -> None:
    assert names(route(variants=LADDER[::-1])) == [variant.name for variant in LADDER]


def test_route_takes_the_requests_budget_before_the_class_and_the_model() -> None:
    phone = ClientHardware("phone")
    budgets = [route(knobs).budget_s for knobs in (Knobs(0.02, hardware=phone), Knobs(hardware=phone), NO_KNOBS)]
    assert budgets == [0.02, 0.04, 0.1]


def test_route_takes_the_models_budget_where_the_class_has_none() -> None:
    assert route(Knobs(hardware=ClientHardware("desktop"))).budget_s == 0.1


@pytest.mark.parametrize(("network_s", "budget_s"), [(0.03, 0.07), (0.5, 0.0)])
def test_route_takes_network_time_off_the_budget_but_not_below_zero(network_s: float, budget_s: float) -> None:
    assert route(Knobs(hardware=ClientHardware(network_s=network_s))).budget_s == pytest.approx(budget_s)


@pytest.mark.parametrize(("asked_s", "timeout_s"), [(None, 60.0), (0.5, 0.5), (3600.0, 60.0), (0.0, 0.0)])
def test_rules_keep_the_shorter_of_the_requests_and_the_servers_timeout(
    asked_s: float | None, timeout_s: float
) -> None:
    assert RULES.timeout_s(Knobs(timeout_s=asked_s)) == timeout_s


def test_route_offers_a_dominated_variant_only_where_its_dominator_may_not_answer() -> None:
    beaten = replace(make_variant("pruned", 0.910, 0.010), is_routable=False, dominated_by="quantized")
    ladder = (*LADDER, beaten)
    assert "pruned" not in names(route(variants=ladder))
    floats_only = Knobs(hardware=ClientHardware("floats"))
    rules = replace(RULES, classes={"floats": HardwareClass(tiers=("full", "pruned"))})
    assert names(route(floats_only, rules, ready=frozenset({*ALL, "pruned"}), variants=ladder)) == ["full", "pruned"]
    without_dominator = frozenset({*ALL, "pruned"}) - {"quantized"}
    assert "pruned" in names(route(ready=without_dominator, variants=ladder))


def test_route_leaves_out_what_is_below_the_accuracy_floor() -> None:
    found = route(Knobs(min_accuracy=0.90))
    assert names(found) == ["full", "quantized", "pruned-quantized"]
    assert found.is_floored


def test_route_refuses_a_floor_above_every_variant_and_says_what_there_is() -> None:
    with pytest.raises(InvalidRequest, match=r"min_accuracy 0.99 is above every variant .*full \(full, 0.9200"):
        route(Knobs(min_accuracy=0.99))


def test_route_offers_exactly_the_pinned_variant_even_one_kept_out_of_routing() -> None:
    hidden = replace(LADDER[1], is_routable=False)
    found = route(Knobs(variant="quantized"), variants=(LADDER[0], hidden))
    assert names(found) == ["quantized"]
    assert found.is_pinned


def test_route_refuses_an_unknown_pin_and_names_the_variants() -> None:
    with pytest.raises(VariantNotFound, match="no variant 'tiny'; its variants are full, quantized"):
        route(Knobs(variant="tiny"))


def test_route_refuses_an_unknown_tier_and_names_the_tiers() -> None:
    with pytest.raises(VariantNotFound, match="no tier 'distilled'; its tiers are full, quantized"):
        route(Knobs(tier="distilled"))


def test_route_refuses_a_pin_of_another_tier() -> None:
    with pytest.raises(VariantNotFound, match="no variant 'full' of tier 'quantized'"):
        route(Knobs(variant="full", tier="quantized"))


def test_route_takes_a_pin_with_its_own_tier() -> None:
    assert names(route(Knobs(variant="full", tier="full"))) == ["full"]


def test_route_offers_the_routable_variants_of_a_tier() -> None:
    variants = (
        make_variant("q8", 0.91, 0.01, "quantized"),
        make_variant("q4", 0.89, 0.01, "quantized"),
        make_variant("q2", 0.70, 0.01, "quantized", is_routable=False),
    )
    found = route(Knobs(tier="quantized"), ready=frozenset({"q8", "q4", "q2"}), variants=variants)
    assert names(found) == ["q8", "q4"]


def test_route_offers_unroutable_variants_of_a_tier_that_has_no_other() -> None:
    assert names(route(Knobs(tier="full"), variants=(replace(LADDER[0], is_routable=False),))) == ["full"]


def test_route_refuses_a_pin_below_the_floor() -> None:
    with pytest.raises(InvalidRequest, match="min_accuracy"):
        route(Knobs(variant="distilled-quantized", min_accuracy=0.9))


def test_route_leaves_out_what_routing_may_not_choose() -> None:
    variants = (replace(LADDER[0], is_routable=False), *LADDER[1:])
    rules = replace(RULES, policy=ModelPolicy(variants=("full", "quantized", "distilled-quantized")))
    assert names(route(rules=rules, variants=variants)) == ["quantized", "distilled-quantized"]


def test_route_says_not_ready_when_the_policy_allows_no_variant() -> None:
    rules = replace(RULES, policy=ModelPolicy(variants=("retired",)))
    with pytest.raises(ModelNotReady, match="has no variant that routing may choose"):
        route(rules=rules)


def test_route_leaves_out_tiers_that_do_not_suit_the_device() -> None:
    found = route(Knobs(hardware=ClientHardware(is_mobile=True)))
    assert names(found) == ["pruned-quantized", "distilled-quantized"]
    assert (found.hardware_class, found.is_narrowed_by_hardware) == ("phone", True)


def test_route_leaves_out_what_the_devices_memory_cannot_hold() -> None:
    variants = (replace(LADDER[0], memory_bytes=2**30), LADDER[1])
    found = route(Knobs(hardware=ClientHardware(memory_bytes=2**29)), variants=variants)
    assert names(found) == ["quantized"]
    assert found.is_narrowed_by_hardware


def test_route_is_not_narrowed_by_a_device_that_takes_the_best() -> None:
    assert not route(Knobs(hardware=ClientHardware("desktop"))).is_narrowed_by_hardware


def test_route_refuses_a_device_that_nothing_suits() -> None:
    with pytest.raises(InvalidRequest, match="client_hardware suits no variant"):
        route(Knobs(hardware=ClientHardware("exotic")))


def test_route_refuses_an_unknown_class_even_with_a_pin() -> None:
    with pytest.raises(InvalidRequest, match="'toaster' is not a class"):
        route(Knobs(variant="full", hardware=ClientHardware("toaster")))


def test_route_pins_past_the_device() -> None:
    assert names(route(Knobs(variant="full", hardware=ClientHardware("phone")))) == ["full"]


def test_route_leaves_out_variants_that_are_not_ready() -> None:
    assert names(route(ready=frozenset({"quantized"}))) == ["quantized"]


@pytest.mark.parametrize(("knobs", "missing"), [(NO_KNOBS, "full, quantized"), (Knobs(variant="full"), "full")])
def test_route_says_not_ready_when_what_is_asked_for_is_not_loaded(knobs: Knobs, missing: str) -> None:
    with pytest.raises(ModelNotReady, match=f"no ready variant among {missing}"):
        route(knobs, ready=frozenset())


PHONE = route(Knobs(hardware=ClientHardware("phone")))


@pytest.mark.parametrize(
    ("found", "chosen", "best", "is_late", "reason"),
    [
        (route(), "full", "full", False, Reason.WITHIN_BUDGET),
        (route(), "quantized", "full", False, Reason.DOWNGRADED),
        (route(), "pruned-quantized", "pruned-quantized", False, Reason.WITHIN_BUDGET),
        (route(), "distilled-quantized", "pruned-quantized", False, Reason.DOWNGRADED),
        (route(), "quantized", "pruned-quantized", False, Reason.WITHIN_BUDGET),
        (route(), "distilled-quantized", "full", True, Reason.LATE),
        (route(), "distilled-quantized", None, True, Reason.LATE),
        (route(Knobs(variant="full")), "full", None, True, Reason.PINNED),
        (route(Knobs(tier="full", min_accuracy=0.9)), "full", None, False, Reason.PINNED),
        (route(Knobs(min_accuracy=0.9)), "full", None, True, Reason.ACCURACY_FLOOR),
        (route(Knobs(min_accuracy=0.9)), "full", "full", False, Reason.WITHIN_BUDGET),
        (route(Knobs(min_accuracy=0.9)), "pruned-quantized", "full", True, Reason.LATE),
        (route(Knobs(min_accuracy=0.9)), "pruned-quantized", "full", False, Reason.DOWNGRADED),
        (
            PHONE,
            "pruned-quantized",
            "pruned-quantized",
            False,
            Reason.HARDWARE,
        ),
        (
            PHONE,
            "distilled-quantized",
            "pruned-quantized",
            False,
            Reason.DOWNGRADED,
        ),
        (
            PHONE,
            "distilled-quantized",
            "distilled-quantized",
            False,
            Reason.WITHIN_BUDGET,
        ),
    ],
)
def test_reason_tells_why_a_variant_answers(
    found: Route, chosen: str, best: str | None, *, is_late: bool, reason: Reason
) -> None:
    assert name_reason(found, chosen, best, is_late=is_late) is reason


@st.composite
def models(draw: st.DrawFn) -> ModelInfo:
    tiers = st.sampled_from(["full", "pruned", "quantized", "pruned-quantized", "distilled-quantized"])
    count = draw(st.integers(1, 6))
    return make_model(
        [
            make_variant(
                f"v{number}",
                draw(st.sampled_from([0.5, 0.7, 0.7, 0.9])),
                0.01,
                draw(tiers),
                is_routable=draw(st.booleans()),
                memory_bytes=draw(st.sampled_from([2**20, 2**30])),
            )
            for number in range(count)
        ]
    )


@st.composite
def any_knobs(draw: st.DrawFn) -> Knobs:
    hardware = st.builds(
        ClientHardware,
        class_name=st.sampled_from([None, "phone", "desktop", "exotic"]),
        memory_bytes=st.sampled_from([None, 2.0**25]),
        is_mobile=st.sampled_from([None, True]),
        network_s=st.floats(0.0, 1.0),
    )
    return Knobs(
        budget_s=draw(st.none() | st.floats(0.001, 10.0)),
        timeout_s=draw(st.none() | st.floats(0.001, 100.0)),
        min_accuracy=draw(st.sampled_from([None, 0.0, 0.6, 0.8, 1.0])),
        variant=draw(st.sampled_from([None, None, "v0", "v3"])),
        tier=draw(st.sampled_from([None, None, "full", "quantized"])),
        hardware=draw(st.none() | hardware),
    )


@given(models(), any_knobs(), st.sets(st.sampled_from([f"v{number}" for number in range(6)])))
def test_route_keeps_every_promise_or_refuses(model: ModelInfo, knobs: Knobs, ready: set[str]) -> None:
    try:
        found = choose_route(model, knobs, RULES, ready)
    except (InvalidRequest, ModelNotReady, VariantNotFound):
        return
    accuracies = [variant.accuracy for variant in found.candidates]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[-1] >= (knobs.min_accuracy or 0.0)
    assert {variant.name for variant in found.candidates} <= ready
    assert found.budget_s >= 0.0
    if knobs.variant is not None:
        assert names(found) == [knobs.variant]
    if knobs.tier is not None:
        assert {variant.tier for variant in found.candidates} == {knobs.tier}
    if not found.is_pinned:
        assert all(variant.is_routable for variant in found.candidates)
        tiers = RULES.classes[found.hardware_class].tiers if found.hardware_class else ()
        assert not tiers or {variant.tier for variant in found.candidates} <= set(tiers)
        memory = knobs.hardware.memory_bytes if knobs.hardware else None
        assert memory is None or all(variant.memory_bytes <= memory for variant in found.candidates)
