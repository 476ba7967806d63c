"""A model as routing should see it, given what drift says of its variants.

A demoted variant has lost its claim to the manifest's accuracy: it stands in the ladder at the estimate. A quarantined
one is no candidate; a request that pins it is still answered by it, as a dominated variant is. What a quarantined
variant dominated may answer again. A model never loses all that its policy allows: where everything would be out, the
most accurate of them stays; what could not be loaded does not count. What the manifest claimed of either stays known,
so that a request that only they could have served is told apart from one that never had a chance.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from service.domain.policy_file import ModelPolicy
    from service.domain.variants import ModelInfo, Variant
    from service.domain.verdicts import Verdict


def judge(
    info: ModelInfo, verdicts: Mapping[str, Verdict], policy: ModelPolicy, loaded: Collection[str] | None = None
) -> ModelInfo:
    """Return the model with the accuracies that are believed and without a claim to route what is quarantined.

    ``loaded`` are the variants that can answer, all by default.
    """
    if not verdicts:
        return info
    out = {name for name, verdict in verdicts.items() if verdict.is_out}
    names = {item.name for item in info.variants if loaded is None or item.name in loaded}
    out -= _spared(info, out, {name for name in names if not policy.variants or name in policy.variants})
    return replace(info, variants=tuple(_judged(item, verdicts.get(item.name), out) for item in info.variants))


def _spared(info: ModelInfo, out: set[str], names: set[str]) -> set[str]:
    """Return which of ``names`` stays although it is out, so that something may answer; empty where others do."""
    allowed = [item for item in info.variants if item.name in names]
    routable = [item for item in allowed if item.is_routable] or [item for item in allowed if item.dominated_by]
    if not routable or any(item.name not in out for item in routable):
        return set()
    return {max(routable, key=lambda item: item.accuracy).name}


def _judged(item: Variant, verdict: Verdict | None, out: set[str]) -> Variant:
    if item.name in out:
        why = f"quarantined: {verdict.why if verdict else ''}"
        return replace(item, is_routable=False, dominated_by="", note=why, doubted_accuracy=item.accuracy)
    if verdict is not None and verdict.accuracy is not None:
        return replace(item, accuracy=verdict.accuracy, doubted_accuracy=item.accuracy)
    return item
