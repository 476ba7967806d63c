from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import service.domain.policy_file
from service.domain.policy_file import ModelPolicy, PolicyFile, policy_schema

SCHEMA = Path(service.domain.policy_file.__file__).with_suffix(".schema.json")


def test_policy_file_needs_nothing() -> None:
    policy = PolicyFile.model_validate({})
    assert (policy.default.default_budget_s, policy.default.safety_quantile) == (0.1, "p95")


@pytest.mark.parametrize(
    "content",
    [
        {"defaults": {}},
        {"default": {"budget": 1}},
        {"hardware_classes": {"phone": {"tier": ["full"]}}},
        {"hardware_classes": {"phone": {"match": {"cores": 8}}}},
        {"provenance": {"written_by": "tune", "host": "here"}},
    ],
)
def test_policy_file_refuses_unknown_fields_at_every_level(content: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        PolicyFile.model_validate(content)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("default_budget_ms", 0),
        ("default_budget_ms", -1),
        ("default_budget_ms", 3_600_001),
        ("default_budget_ms", float("inf")),
        ("default_budget_ms", float("nan")),
        ("default_budget_ms", "soon"),
        ("safety_quantile", "p90"),
        ("safety_margin_ratio", -0.1),
        ("safety_margin_ratio", 10.5),
        ("max_batch_size", 0),
        ("max_batch_size", 4097),
        ("max_queued", 0),
        ("variants", "full"),
    ],
)
def test_model_policy_refuses_values_out_of_range(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        ModelPolicy.model_validate({name: value})


def test_policy_file_refuses_another_schema_version() -> None:
    with pytest.raises(ValidationError, match="schema_version"):
        PolicyFile.model_validate({"schema_version": 2})


def test_policy_file_gives_a_model_its_own_policy_or_the_default() -> None:
    policy = PolicyFile.model_validate({"default": {"max_queued": 5}, "models": {"sums": {"default_budget_ms": 250}}})
    assert (policy.of("sums").default_budget_s, policy.of("sums").max_queued) == (0.25, 1000)
    assert policy.of("other").max_queued == 5


def test_policy_file_refuses_to_be_changed() -> None:
    policy: Any = PolicyFile()
    with pytest.raises(ValidationError, match="frozen"):
        policy.default = ModelPolicy()


def test_policy_files_do_not_share_their_default_classes() -> None:
    one, other = PolicyFile(), PolicyFile()
    one.hardware_classes.clear()
    assert "mobile" in other.hardware_classes


def test_policy_schema_in_the_repository_is_that_of_the_code() -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == json.loads(json.dumps(policy_schema())), (
        f"write it anew: python -c 'import json; from service.domain.policy_file import policy_schema; "
        f"print(json.dumps(policy_schema(), indent=2))' > {SCHEMA}"
    )
