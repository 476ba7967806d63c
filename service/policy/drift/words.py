"""Evidence as a sentence, for the log, the history and people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.policy.drift.lifecycle import Evidence


def in_words(evidence: Evidence, beside: str) -> str:
    """Return what is known; ``beside`` names with whom the pairs were made."""
    parts: Iterable[str] = (
        f"loss {evidence.loss:.3f} against {beside} where {evidence.allowed_loss:.3f} is allowed"
        if evidence.loss is not None and evidence.allowed_loss is not None
        else "",
        f"accuracy {evidence.accuracy:.3f} by labels where {evidence.claimed_accuracy:.3f} is claimed"
        if evidence.accuracy is not None
        else "",
        f"evidence {max(evidence.drop, evidence.label_drop):.3g} of a drop",
        f"{max(evidence.severe, evidence.label_severe):.3g} of a severe one",
        f"{evidence.recovery:.3g} of recovery",
        f"{evidence.samples} samples",
    )
    return ", ".join(filter(None, parts))
