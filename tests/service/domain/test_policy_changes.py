from __future__ import annotations

from service.domain.policy_changes import policy_changes
from service.domain.policy_file import PolicyFile


def changes(before: dict[str, object], after: dict[str, object]) -> list[str]:
    pair = (PolicyFile.model_validate(before), PolicyFile.model_validate(after))
    return [str(change) for change in policy_changes(*pair)]


def test_equal_policies_differ_in_nothing_even_where_one_spells_out_its_defaults() -> None:
    spelled = PolicyFile().model_dump()
    assert changes({}, spelled) == []
    assert changes({"models": {"sums": {}}}, {}) == []


def test_fields_are_told_with_their_defaults() -> None:
    assert changes({}, {"default": {"max_queued": 5, "variants": ["full", "small"]}}) == [
        "default.max_queued: 1000 (default) -> 5",
        "default.variants: none (default) -> full, small",
    ]


def test_a_model_that_only_one_file_names_is_compared_with_the_others_default() -> None:
    before = {"default": {"default_budget_ms": 20}, "models": {"sums": {"weight": 2}}}
    assert changes(before, {"default": {"default_budget_ms": 20}}) == [
        "models.sums.default_budget_ms: 100 (default) -> 20",
        "models.sums.weight: 2 -> 1 (default)",
    ]


def test_hardware_classes_are_compared_with_their_order_and_conditions() -> None:
    first = {"a": {"tiers": ["full"]}, "b": {"match": {"is_mobile": True}}}
    second = {"b": {"match": {"is_mobile": False}}, "a": {"tiers": ["full"]}}
    assert changes({"hardware_classes": first}, {"hardware_classes": second}) == [
        "hardware_classes: a, b -> b, a",
        "hardware_classes.b.match.is_mobile: True -> False",
    ]
    assert changes({"hardware_classes": {}}, {"hardware_classes": {"a": {"tiers": ["full"]}}})[1] == (
        "hardware_classes.a.tiers: absent -> full"
    )


def test_provenance_is_compared_too() -> None:
    new: dict[str, object] = {"provenance": {"written_by": "me", "outcome": {"attainment": 0.99}}}
    assert "provenance.outcome: absent -> attainment 0.99" in changes({}, new)
