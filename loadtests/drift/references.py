"""A manifest's references as the policy takes them; the gateway has its own reader, which load tests may not import."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from service.domain.drift import AllowedLoss, Calibration, Distribution, InputReference, VariantReference

if TYPE_CHECKING:
    from variants.manifest import ModelManifest

T = TypeVar("T")


class ReferenceMissing(ValueError):
    """A manifest is of a build that wrote no reference for drift."""


def present(value: T | None, what: str) -> T:
    """Return ``value``.

    Raises:
        ReferenceMissing: There is none.
    """
    if value is None:
        raise ReferenceMissing(f"the manifest has no {what}; build the model again")
    return value


def references_of(manifest: ModelManifest) -> dict[str, VariantReference]:
    """Return the reference of every variant whose build wrote one, by name."""
    found = {}
    for item in manifest.published:
        drift = item.drift
        if drift is None:
            continue
        limit, chance, odds = drift.allowed, drift.calibration, drift.log_odds
        found[item.name] = VariantReference(
            accuracy=item.accuracy.value,
            rows=item.accuracy.rows,
            allowed=None if limit is None else AllowedLoss(limit.rate, limit.intercept, limit.slope),
            calibration=None if chance is None else Calibration(**chance.model_dump(), accuracy=drift.accuracy),
            log_odds=None if odds is None else Distribution(odds.edges, odds.counts),
        )
    return found


def input_reference_of(manifest: ModelManifest) -> InputReference | None:
    """Return the reference of the model's first input."""
    found = manifest.input_drift
    return None if found is None else InputReference(**found.model_dump())
