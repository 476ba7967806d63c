"""What the watch over a model knows, as it is shown."""

from __future__ import annotations

from math import log10
from typing import TYPE_CHECKING, Final

from service.domain.verdicts import ModelDrift, Rolling, VariantDrift
from service.policy.drift.classification import Classification

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from service.domain.drift import DriftPolicy
    from service.engine.drift.shadows import Shadows
    from service.engine.drift.watching import ModelWatch
    from service.policy.drift.rolling import Interval
    from service.policy.drift.watch import WatchReport

_LEAST_P: Final = 1e-300


def report_of(watch: ModelWatch, shadows: Shadows, *, has_store: bool) -> ModelDrift:
    """Return everything that is known of a model's drift."""
    info, rules = watch.model.info, watch.model.policy.drift
    return ModelDrift(
        model=info.name,
        version=info.version,
        most=rules.most,
        variants=tuple(_variant(watch, shadows, name) for name in watch.watches),
        notes=_notes(watch, shadows.scheduling, has_store=has_store),
        labels_kept=has_store,
        feedback=dict(watch.feedback),
        input_scores={name: _by_level(p, watch.policy) for name, p in watch.input_p.items()},
    )


def _notes(watch: ModelWatch, scheduling: str, *, has_store: bool) -> tuple[str, ...]:
    """Say what is not watched, and why."""
    model = watch.model
    if not watch.is_on:
        return ("nothing is watched: the policy has drift.most none",)
    notes = []
    if not watch.has_scores:
        notes.append(f"answers are not compared: output '{model.info.outputs[0].name}' is no floating-point tensor")
    notes += _notes_on_full(watch)
    if not any(item.reference.calibration for item in watch.watches.values()):
        notes.append("no estimate without labels: the manifest has no calibration")
    notes += [
        f"variant '{name}' is out and not in memory: nothing shows whether it recovered; a hand can restore it"
        for name, item in watch.watches.items()
        if item.standing.state == "quarantined" and name not in model.backends
    ]
    if scheduling == "normal":
        notes.append("shadow runs have no lower priority: the system allows none")
    if not has_store:
        notes.append("no labels: the gateway keeps no predictions (--predictions)")
    return tuple(notes)


def _notes_on_full(watch: ModelWatch) -> Iterator[str]:
    """Say whether the others can be held against full, and whether full can be held against them."""
    model, full = watch.model, watch.full
    if not full:
        yield "no shadow runs: there is no variant of tier full on this machine"
        return
    if model.policy.drift.shadow_share == 0.0:
        yield "no shadow runs: the policy has drift.shadow_share 0; only labels and confidences tell"
    if full not in model.backends:
        yield f"no shadow runs now: variant '{full}' is not in memory, and none is evicted for it"
    smaller = {name: item for name, item in watch.watches.items() if item.reference.allowed is not None}
    if smaller and watch.panel.is_full_doubted:
        yield f"'{full}' is in doubt: meanwhile no variant is judged by it"
    elif smaller and not watch.panel.nearest():
        yield f"no variant can bear witness of '{full}': where a smaller one differs from it, it is believed"
    if len(smaller) > 1 and all(item.standing.state in ("demoted", "quarantined") for item in smaller.values()):
        yield f"every smaller variant differs from '{full}': it may be '{full}' that is not what was measured"


def _variant(watch: ModelWatch, shadows: Shadows, name: str) -> VariantDrift:
    found, model = watch.watches[name].report(), watch.model
    judged = next(item for item in model.judged.variants if item.name == name)
    scores = _scores(found, watch.policy)
    measured = found.accuracy
    estimate, by = _estimate(found)
    has_margin = isinstance(watch.reference.agreement, Classification)
    return VariantDrift(
        variant=name,
        state=found.state,
        is_held=found.is_held,
        is_routed=judged.is_routable,
        claimed_accuracy=found.claimed_accuracy,
        routed_accuracy=judged.accuracy,
        shadow_share=watch.taps.taps[name].shadow_share,
        shadow_samples=watch.samples[name],
        agreement=1.0 - found.loss.value if found.loss.count else None,
        allowed_agreement=None if found.allowed_loss is None else 1.0 - found.allowed_loss,
        score_distance=_mean(found.distance),
        margin=_mean(found.margin) if has_margin else None,
        estimate=estimate,
        estimate_by=by,
        labels=Rolling(measured.count, measured.value, measured.low, measured.high) if measured.count else None,
        scores=scores,
        detected=tuple(detector for detector, score in scores.items() if score >= 1.0),
        shadow_runs=shadows.counts(model.info.name, name),
        history=tuple(watch.history[name]),
    )


def _scores(found: WatchReport, policy: DriftPolicy) -> Mapping[str, float]:
    evidence = found.evidence
    scores = {
        "shadow": evidence.drop / policy.demote_run_length,
        "labels": max(evidence.label_drop, evidence.label_severe) / policy.demote_run_length,
        "confidence_psi": 0.0,
        "confidence_ks": 0.0,
    }
    if found.confidence is not None:
        scores["confidence_psi"] = _by_level(found.confidence.psi_p, policy)
        scores["confidence_ks"] = _by_level(found.confidence.ks_p, policy)
    return scores


def _mean(found: Interval) -> float | None:
    return found.value if found.count else None


def _by_level(p: float, policy: DriftPolicy) -> float:
    """Return a chance of being wrong as a score that is 1 at the level that speaks up."""
    return log10(max(p, _LEAST_P)) / log10(policy.distribution_level)


def _estimate(found: WatchReport) -> tuple[tuple[float, float, float] | None, str]:
    """Return the accuracy that is believed now with its interval, and by what."""
    if found.accuracy.count:
        return (found.accuracy.value, found.accuracy.low, found.accuracy.high), "labels"
    if found.estimate is not None:
        return (found.estimate.value, found.estimate.low, found.estimate.high), found.estimate.method
    return None, ""
