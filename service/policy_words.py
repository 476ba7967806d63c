"""What a policy means for one built model, in words: ``tiergate policy explain``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from service.domain.errors import InvalidRequest
from service.domain.inference import NO_KNOBS, ClientHardware
from service.policy.idle import idle_answer, idle_answers
from service.policy.routing import Rules
from service.policy.sampling import ENOUGH_HZ, LEAST_HZ

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from service.domain.policy_file import DriftRules, ModelPolicy, PolicyFile
    from service.domain.variants import ModelInfo
    from service.policy.idle import IdleAnswer

_LONGEST_S: Final = 3600.0
_NOTE: Final = """\
Times are the build machine's; a gateway corrects them by what it sees. Under load it answers with smaller variants."""


@dataclass(frozen=True, slots=True)
class ClassAnswer:
    """What a client of a hardware class gets by default; ``answer`` is ``None`` where nothing suits it."""

    name: str
    tiers: tuple[str, ...]
    budget_s: float
    answer: IdleAnswer | None


@dataclass(frozen=True, slots=True)
class Explained:
    """A policy for one model, as data and as text."""

    model: str
    policy: ModelPolicy
    has_own: bool
    by_budget: Sequence[IdleAnswer]
    asked: Sequence[IdleAnswer]
    classes: Sequence[ClassAnswer]

    def as_json(self) -> dict[str, Any]:
        """Return plain data; times in seconds."""
        return {
            "model": self.model,
            "has_own_policy": self.has_own,
            "policy": self.policy.model_dump(mode="json"),
            "idle": [asdict(item) for item in self.by_budget],
            "budgets": [asdict(item) for item in self.asked],
            "hardware_classes": [asdict(item) for item in self.classes],
        }

    def as_text(self) -> str:
        """Return it for reading."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        source = "its own policy" if self.has_own else "the file's default policy"
        yield f"{self.model} goes by {source}:"
        yield from (f"  {line}" for line in _sentences(self.policy))
        yield "An idle machine answers one lone row, by the latency budget that the request names:"
        for item in self.by_budget:
            start = f"from {_ms(item.from_budget_s)}" if item.from_budget_s else "any shorter"
            yield f"  {start:18}{_said(item)}"
        for item in self.asked:
            yield f"  at   {_ms(item.from_budget_s):13}{_said(item)}"
        if self.classes:
            yield "Clients of a hardware class, with the class's default budget:"
        for kind in self.classes:
            answer = "no variant suits: refused" if kind.answer is None else _said(kind.answer)
            yield f"  {kind.name:18}{_ms(kind.budget_s):>12}  {answer}  (tiers: {', '.join(kind.tiers) or 'all'})"
        yield _NOTE


def explain_policy(policy: PolicyFile, model: ModelInfo, budgets_ms: Sequence[float] = ()) -> Explained:
    """Ask the gateway's own routing and scheduling what they would do on an idle machine.

    Raises:
        InvalidRequest: A budget is not above zero and finite.
        ModelNotReady: The policy allows no variant of the model.
    """
    rules = Rules(policy.of(model.name), policy.hardware_classes, _LONGEST_S)
    for budget_ms in budgets_ms:
        if not 0.0 < budget_ms <= _LONGEST_S * 1e3:
            raise InvalidRequest(f"--budget-ms is {budget_ms:g}; it must be above 0 and at most {_LONGEST_S * 1e3:g}")
    asked = [idle_answer(model, replace(NO_KNOBS, budget_s=item / 1e3), rules) for item in budgets_ms]
    classes = [_of_class(name, model, rules) for name in policy.hardware_classes]
    return Explained(
        model=model.name,
        policy=rules.policy,
        has_own=model.name in policy.models,
        by_budget=idle_answers(model, NO_KNOBS, rules),
        asked=asked,
        classes=classes,
    )


def _of_class(name: str, model: ModelInfo, rules: Rules) -> ClassAnswer:
    kind = rules.classes[name]
    budget_s = rules.policy.default_budget_s if kind.default_budget_s is None else kind.default_budget_s
    try:
        answer = idle_answer(model, replace(NO_KNOBS, hardware=ClientHardware(class_name=name)), rules)
    except InvalidRequest:
        answer = None
    return ClassAnswer(name, kind.tiers, budget_s, answer)


def _sentences(policy: ModelPolicy) -> Iterator[str]:
    yield f"a request without a budget aims at {policy.default_budget_ms:g} ms"
    yield f"a run is expected to take its measured {policy.safety_quantile} plus {policy.safety_margin_ratio:.0%}"
    if policy.objective == "cost":
        yield f"cost: the cheapest variant at most {policy.max_accuracy_loss:.2%} less accurate than the best candidate"
    else:
        yield "accuracy: the most accurate variant at which everything that waits stays on time"
    if policy.price_per_cpu_s:
        yield f"a CPU-second more must gain {policy.price_per_cpu_s:g} in accuracy"
    yield f"price of time kept free for bursts: {policy.burst_price:g}; losses raise it by {policy.shortage_weight:g}"
    yield f"may answer: {', '.join(policy.variants) or 'every published variant'}"
    yield f"a run takes up to {policy.max_batch_size} rows; up to {policy.max_queued} requests wait, more are refused"
    if policy.defers:
        yield "a run waits for a fuller batch where batching gains and a better variant is then kept up"
    yield f"its share of the lanes has weight {policy.weight:g} among models that wait"
    yield f"{policy.exploration_share:.1%} of decisions give variants judged slow another chance"
    yield _cascades_in_words(policy)
    yield from _drift_sentences(policy.drift)


def _cascades_in_words(policy: ModelPolicy) -> str:
    if not policy.cascades:
        return "cascades are not used"
    ratio = policy.cascade_margin_ratio
    return "cascades of the manifest are used" + ("" if ratio == 1.0 else f", with {ratio:g} times their margins")


def _drift_sentences(rules: DriftRules) -> Iterator[str]:
    if rules.most == "none":
        yield "variants are not watched for drift"
        return
    acts = ["warned of", f"demoted where it loses {rules.drop:.1%}", f"quarantined above {rules.severe_drop:.1%}"]
    most = {"warn": 1, "demote": 2, "quarantine": 3}[rules.most]
    share = rules.shadow_share
    if share > 0.0:
        most_hz = max(LEAST_HZ, ENOUGH_HZ * share)
        yield f"{share:.1%} of a smaller variant's answers are also run on full, where there is spare time"
        yield f"that is not more than {most_hz:g} a second, but more while a variant is new or under suspicion"
    else:
        yield "no answers are run on full: only labels tell of what became less accurate"
    yield f"a variant that became less accurate is {', '.join(acts[:most])}"


def _said(item: IdleAnswer) -> str:
    late = ", late" if item.is_late else ""
    return f"{item.name}: up to {_ms(item.predicted_s)}, {item.accuracy:.2%} accurate{late}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1.0 else f"{seconds * 1e3:g} ms"
