"""The page about the policy file says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

import service
from service.domain.policy_file import DriftRules, HardwareClass, HardwareMatch, ModelPolicy, PolicyFile, Provenance

PAGE = (Path(service.__file__).parents[1] / "docs" / "policy.md").read_text(encoding="utf-8")


def shown(default: object) -> str:
    if isinstance(default, float):
        return f"{default:g}"
    if isinstance(default, DriftRules):
        return "as below"
    return str(default).lower() if isinstance(default, bool) else str(default or "none")


def test_page_has_every_field_of_a_model_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \| [^|]+ \|$", PAGE, re.MULTILINE))
    fields = {name: field.default for name, field in ModelPolicy.model_fields.items()}
    # Zero is a default too, not the absence of one.
    assert rows == {
        name: "0" if value == 0.0 and value is not False else shown(value) for name, value in fields.items()
    }


def test_page_has_every_field_of_drift_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `drift\.(\w+)` \| ([^|]+) \| [^|]+ \| [^|]+ \|$", PAGE, re.MULTILINE))
    assert rows == {name: shown(field.default) for name, field in DriftRules.model_fields.items()}


def test_page_names_every_other_field() -> None:
    names = [*HardwareClass.model_fields, *Provenance.model_fields]
    names += [f"match.{name}" for name in HardwareMatch.model_fields]
    assert [name for name in names if f"`{name}`" not in PAGE] == []


def test_example_is_a_valid_policy() -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    policy = PolicyFile.model_validate(yaml.safe_load(example))
    assert policy.of("digits").default_budget_ms == 4
