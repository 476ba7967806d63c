"""The policy file that a tune leaves behind: the thresholds that differ from the defaults, and where they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from loadtests.h2load import LoadError
from service.domain.policy_file import ModelPolicy, PolicyFile, Provenance

if TYPE_CHECKING:
    from pathlib import Path

    from loadtests.tuner.judge import Judgement

_DIGITS = 6


def read_base(path: Path | None) -> PolicyFile:
    """Return the policy file to improve upon; the defaults where there is none.

    Raises:
        LoadError: It cannot be read, or is not valid.
    """
    if path is None:
        return PolicyFile()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LoadError(f"policy file {path} cannot be used: {error.strerror or error}") from None
    return parse_base(content, f"policy file {path}")


def parse_base(content: bytes, name: str) -> PolicyFile:
    """Return the policy that a text holds; ``name`` is what errors call it. An empty text holds the defaults.

    Raises:
        LoadError: It is not valid.
    """
    try:
        return PolicyFile.model_validate(yaml.safe_load(content) or {})
    except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        raise LoadError(f"{name} cannot be used: {error}") from None


def outcome_of(judgement: Judgement) -> dict[str, float]:
    """Return the measured outcome as the provenance keeps it: the worst workload's figures, and the gain."""
    worst = min(range(len(judgement.tuned)), key=lambda place: judgement.tuned[place].attainment)
    outcome = {}
    for name, figures in (("base", judgement.base[worst]), ("tuned", judgement.tuned[worst])):
        outcome[f"{name}_attainment"] = figures.attainment
        outcome[f"{name}_effective_accuracy"] = figures.accuracy
        outcome[f"{name}_cpu_s"] = figures.cpu_s
    gain = judgement.gain
    outcome |= {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high}
    return {name: round(value, _DIGITS) for name, value in outcome.items()}


def compose(base: PolicyFile, model: str, tuned: ModelPolicy, provenance: Provenance) -> str:
    """Return the base file's YAML with one model's thresholds and the provenance replaced.

    Of the model, what differs from the built-in defaults is written; the default budget always is.
    """
    plain = ModelPolicy()
    own: dict[str, Any] = {
        name: value
        for name, value in tuned.model_dump(mode="json").items()
        if name == "default_budget_ms" or getattr(tuned, name) != getattr(plain, name)
    }
    content = base.model_dump(mode="json", exclude_unset=True, exclude={"provenance"})
    content["schema_version"] = base.schema_version
    content["models"] = {**content.get("models", {}), model: own}
    content["provenance"] = provenance.model_dump(mode="json", exclude_none=True)
    PolicyFile.model_validate(content)
    return yaml.safe_dump(content, sort_keys=False, width=120)
