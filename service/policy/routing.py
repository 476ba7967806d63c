"""Which variants may answer a request, most accurate first, and how long it may take.

The choice among them is made later, when a lane is free (``policy.scheduling``); here the request's knobs, the
client's hardware and the model's policy are turned into a short list. A pin or a tier says exactly what answers. Else
every published variant is a candidate, less those outside the tiers or the memory of the client's device, less those
that another candidate dominates, less those below the accuracy floor.

A floor that no variant reaches, or a device for which nothing is suitable, is the caller's mistake and refused with
what would be possible. Where something was, and drift has taken it out, the caller has made none: a device that is left
without a suitable variant is answered by the others, as far as they keep the budget; a floor cannot be kept then, which
is the model's state and not the request's fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.domain.errors import InvalidRequest, ModelNotReady, VariantNotFound
from service.domain.inference import Reason
from service.policy.hardware import choose_class

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from service.domain.inference import Knobs
    from service.domain.policy_file import HardwareClass, ModelPolicy
    from service.domain.variants import ModelInfo, Variant


@dataclass(frozen=True, slots=True)
class Route:
    """The candidates of one request, most accurate first, and its budget in seconds from arrival.

    ``names`` are those that scheduling chooses among, cascades included; it is empty until they are known.
    ``is_beyond_hardware`` tells that drift has taken out all that suits the client's device, and the others answer.
    """

    candidates: tuple[Variant, ...]
    budget_s: float
    hardware_class: str = ""
    is_pinned: bool = False
    is_floored: bool = False
    is_narrowed_by_hardware: bool = False
    is_beyond_hardware: bool = False
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """What routing goes by besides the request: the model's policy, the classes, the server's longest timeout."""

    policy: ModelPolicy
    classes: Mapping[str, HardwareClass]
    max_timeout_s: float

    def timeout_s(self, knobs: Knobs) -> float:
        """Return the hard deadline of a request with these knobs, in seconds from its arrival."""
        return self.max_timeout_s if knobs.timeout_s is None else min(knobs.timeout_s, self.max_timeout_s)


def choose_route(model: ModelInfo, knobs: Knobs, rules: Rules, ready: Collection[str]) -> Route:
    """Turn a request's knobs into its candidates and limits; ``ready`` names the variants that are loaded and well.

    Raises:
        InvalidRequest: The accuracy floor or the device leaves no variant.
        VariantNotFound: The pinned variant or tier does not exist.
        ModelNotReady: What the knobs ask for exists, but is not ready.
    """
    class_name = choose_class(knobs.hardware, rules.classes) if knobs.hardware else ""
    suited, is_narrowed, is_beyond_hardware = list(model.variants), False, False
    if knobs.variant is not None or knobs.tier is not None:
        suited = _pinned(model, knobs)
    else:
        suited = [item for item in suited if _is_allowed(item, rules.policy)]
        if not suited:
            raise ModelNotReady(f"model '{model.name}' has no variant that routing may choose; its policy allows none")
        fitting = [item for item in suited if _suits(item, knobs, rules.classes.get(class_name))]
        if not fitting:
            out = [item for item in model.variants if _is_out(item)]
            is_beyond_hardware = any(_suits(item, knobs, rules.classes.get(class_name)) for item in out)
            fitting = suited if is_beyond_hardware else []
        fitting, suited = _undominated(fitting, ready), _undominated(suited, ready)
        is_narrowed = bool(fitting) and _best(fitting).accuracy < _best(suited).accuracy
        suited = _need(fitting, f"client_hardware suits no variant of model '{model.name}'", model)
    if knobs.min_accuracy is not None:
        suited = _above(knobs.min_accuracy, suited, model)
    # On a tie the manifest's order holds, full first: equal on some hundred test rows is no proof of being equal.
    usable = sorted((item for item in suited if item.name in ready), key=lambda item: -item.accuracy)
    if not usable:
        raise ModelNotReady(f"model '{model.name}' has no ready variant among {', '.join(v.name for v in suited)}")
    return Route(
        candidates=tuple(usable),
        budget_s=_budget_s(knobs, rules, class_name),
        hardware_class=class_name,
        is_pinned=knobs.variant is not None or knobs.tier is not None,
        is_floored=knobs.min_accuracy is not None,
        is_narrowed_by_hardware=is_narrowed,
        is_beyond_hardware=is_beyond_hardware,
    )


def _pinned(model: ModelInfo, knobs: Knobs) -> list[Variant]:
    if knobs.variant is not None:
        variant = model.variant(knobs.variant)
        if variant is None or knobs.tier not in (None, variant.tier):
            wanted = f"variant '{knobs.variant}'" + (f" of tier '{knobs.tier}'" if knobs.tier else "")
            names = ", ".join(item.name for item in model.variants)
            raise VariantNotFound(f"model '{model.name}' has no {wanted}; its variants are {names}")
        return [variant]
    of_tier = [item for item in model.variants if item.tier == knobs.tier]
    if not of_tier:
        raise VariantNotFound(
            f"model '{model.name}' has no tier '{knobs.tier}'; its tiers are {', '.join(model.tiers)}"
        )
    # A tier may hold dominated variants; they answer only where nothing better is in the tier.
    return [item for item in of_tier if item.is_routable] or of_tier


def _is_allowed(variant: Variant, policy: ModelPolicy) -> bool:
    may_route = variant.is_routable or bool(variant.dominated_by)
    return may_route and (not policy.variants or variant.name in policy.variants)


def _undominated(variants: Sequence[Variant], ready: Collection[str]) -> list[Variant]:
    """Leave out what another one here beats in everything; where that one may not answer, the beaten one may."""
    names = {item.name for item in variants if item.name in ready}
    return [item for item in variants if item.dominated_by not in names]


def _suits(variant: Variant, knobs: Knobs, hardware_class: HardwareClass | None) -> bool:
    if hardware_class is not None and hardware_class.tiers and variant.tier not in hardware_class.tiers:
        return False
    memory = knobs.hardware.memory_bytes if knobs.hardware else None
    return memory is None or variant.memory_bytes <= memory


def _is_out(variant: Variant) -> bool:
    """Tell whether drift has taken a variant out, which would else be a candidate."""
    return variant.doubted_accuracy is not None and not variant.is_routable


def _above(floor: float, suited: Iterable[Variant], model: ModelInfo) -> list[Variant]:
    found = [item for item in suited if item.accuracy >= floor]
    doubted = [item.name for item in model.variants if (item.doubted_accuracy or 0.0) >= floor]
    if not found and doubted:
        raise ModelNotReady(
            f"model '{model.name}' cannot promise min_accuracy {floor:g} now: drift doubts {', '.join(doubted)}"
        )
    return _need(found, f"min_accuracy {floor:g} is above every variant of model '{model.name}' that may answer", model)


def _need(variants: list[Variant], problem: str, model: ModelInfo) -> list[Variant]:
    if variants:
        return variants
    offers = ", ".join(
        f"{item.name} ({item.tier}, {item.accuracy:.4f}, {item.memory_bytes / 2**20:.1f} MiB)"
        for item in model.variants
        if item.is_routable
    )
    raise InvalidRequest(f"{problem}; it has {offers}")


def _best(variants: Iterable[Variant]) -> Variant:
    return max(variants, key=lambda item: item.accuracy)


def _budget_s(knobs: Knobs, rules: Rules, class_name: str) -> float:
    budget_s = knobs.budget_s
    if budget_s is None and class_name:
        budget_s = rules.classes[class_name].default_budget_s
    if budget_s is None:
        budget_s = rules.policy.default_budget_s
    network_s = knobs.hardware.network_s if knobs.hardware else 0.0
    return max(0.0, budget_s - network_s)


def name_reason(route: Route, chosen: str, best: str | None, *, is_late: bool) -> Reason:
    """Say why ``chosen`` answers; ``best`` is the most accurate candidate that keeps the budget on an idle machine.

    ``is_late`` tells that the budget could no longer be kept when the run was decided.
    """
    if route.is_pinned:
        return Reason.PINNED
    if route.is_floored and best is None:
        return Reason.ACCURACY_FLOOR
    if is_late:
        return Reason.LATE
    names = [item.name for item in route.candidates]
    # Predictions may have fallen since the arrival; what is better than the best then is no downgrade.
    if best is not None and names.index(chosen) > names.index(best):
        return Reason.DOWNGRADED
    if route.is_narrowed_by_hardware and chosen == names[0]:
        return Reason.HARDWARE
    return Reason.WITHIN_BUDGET
