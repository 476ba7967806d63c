"""What differs between two policy files, field by field, as it acts: with every default filled in.

A model that only one of the two names goes by the other's ``default``, so its rows compare with that. A field that a
file leaves out has its built-in default, and the row says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.domain.policy_file import PolicyFile

_ABSENT: Final = "absent"


@dataclass(frozen=True, slots=True)
class Value:
    """One field's value; ``is_default`` where nobody wrote it."""

    value: Any
    is_default: bool = False

    def __str__(self) -> str:
        return f"{_shown(self.value)}{' (default)' if self.is_default else ''}"


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """One field that differs; ``field`` is its place, as in ``models.digits.default_budget_ms``."""

    field: str
    before: Value
    after: Value

    def __str__(self) -> str:
        return f"{self.field}: {self.before} -> {self.after}"


def policy_changes(before: PolicyFile, after: PolicyFile) -> tuple[PolicyChange, ...]:
    """Return the fields that differ: the default's, each named model's, the classes' and the provenance's."""
    models = dict.fromkeys([*before.models, *after.models])
    old, new = dict(_fields(before, models)), dict(_fields(after, models))
    absent = Value(_ABSENT)
    pairs = ((field, old.get(field, absent), new.get(field, absent)) for field in dict.fromkeys([*old, *new]))
    return tuple(PolicyChange(*pair) for pair in pairs if pair[1].value != pair[2].value)


def _fields(policy: PolicyFile, models: Mapping[str, None]) -> Iterator[tuple[str, Value]]:
    yield from _leaves("default", policy.default)
    for name in models:
        yield from _leaves(f"models.{name}", policy.of(name))
    # The first class that matches wins, so their order is part of what the file says.
    yield "hardware_classes", Value(tuple(policy.hardware_classes))
    for name, item in policy.hardware_classes.items():
        yield from _leaves(f"hardware_classes.{name}", item)
    if policy.provenance is not None:
        yield from _leaves("provenance", policy.provenance)


def _leaves(place: str, item: BaseModel) -> Iterator[tuple[str, Value]]:
    for name in type(item).model_fields:
        value = getattr(item, name)
        if isinstance(value, BaseModel):
            yield from _leaves(f"{place}.{name}", value)
        else:
            yield f"{place}.{name}", Value(value, name not in item.model_fields_set)


def _shown(value: object) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(
            f"{key} {item:g}" if isinstance(item, float) else f"{key} {item}" for key, item in value.items()
        )
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)
