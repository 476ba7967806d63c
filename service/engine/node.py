"""What this machine is, and what of a manifest is so on it.

A manifest tells what was measured where the build ran. How fast a variant is here is learnt at its warm-up
(``opening.warm_up``). Whether an int8 variant is right here is read from its evidence (``policy.arithmetic``), and
where it is not known to be, ``unproven_int8`` says what becomes of it:

    precise   ONNX Runtime is told to add in 32 bits where it can (x86), which is exact and slower; elsewhere as avoid
    avoid     routing does not choose it; a request that pins it is answered
    allow     nothing; what it is, is told

A model never loses all that routing may choose: the most accurate variant stays then. Variants that other servers run
are none of this machine's business.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from service.policy.arithmetic import Int8Evidence, judge_int8
from variants.machine import detect_isa

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from service.policy.arithmetic import Arithmetic
    from variants.manifest import ModelManifest, VariantManifest

Treatment = Literal["precise", "avoid", "allow"]

_PRECISE: Final = "session.x64quantprecision"
_INT8: Final = frozenset({"INT8", "UINT8"})


def _nobody(_: str) -> Collection[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Unproven:
    """An int8 variant that is not known to be right on this machine, what was done about it, and why."""

    variant: str
    treatment: Treatment
    why: str


@dataclass(frozen=True, slots=True)
class Node:
    """This machine's instruction sets, none where they are not known, and what to do with what is unproven on them.

    ``elsewhere`` names the variants of a model that other servers run.
    """

    isa: tuple[str, ...] = field(default_factory=detect_isa)
    unproven_int8: Treatment = "precise"
    elsewhere: Callable[[str], Collection[str]] = _nobody

    def suit(self, manifest: ModelManifest) -> tuple[ModelManifest, tuple[Unproven, ...]]:
        """Return the manifest as it holds on this machine, and what is not proven here."""
        found = {
            item.name: self._treat(arithmetic)
            for item in manifest.published
            if item.name not in self.elsewhere(manifest.model)
            and (arithmetic := judge(item, self.isa)) is not None
            and not arithmetic.is_right
        }
        if spared := _spared(manifest, [name for name, (treatment, _) in found.items() if treatment == "avoid"]):
            found[spared] = ("allow", f"{found[spared][1]}; it stays because nothing else is left")
        changed = tuple(_treated(item, *found[item.name]) if item.name in found else item for item in manifest.variants)
        unproven = tuple(Unproven(name, treatment, why) for name, (treatment, why) in found.items())
        return (manifest.model_copy(update={"variants": changed}) if found else manifest), unproven

    def _treat(self, arithmetic: Arithmetic) -> tuple[Treatment, str]:
        if self.unproven_int8 == "precise" and not arithmetic.can_be_precise:
            return "avoid", arithmetic.why
        return self.unproven_int8, arithmetic.why


def judge(variant: VariantManifest, isa: Collection[str]) -> Arithmetic | None:
    """Return whether a variant is right on a processor with these instruction sets, ``None`` where it has no int8."""
    if not set(variant.size.weight_bytes) & _INT8:
        return None
    evidence, emulated = variant.hardware, variant.hardware.saturation
    is_small = emulated is not None and emulated.verdict == "pass"
    loss = None if emulated is None else emulated.loss
    return judge_int8(Int8Evidence(evidence.verified_isa, evidence.proven_isa, loss, is_small), isa)


def _spared(manifest: ModelManifest, avoided: Collection[str]) -> str:
    """Return which of the avoided variants stays so that something may answer; '' where others do."""
    able = [item for item in manifest.published if item.routing.state == "routable" or item.routing.dominated_by]
    if not avoided or any(item.name not in avoided for item in able):
        return ""
    return max(able, key=lambda item: item.accuracy.value).name if able else ""


def _treated(variant: VariantManifest, treatment: Treatment, why: str) -> VariantManifest:
    if treatment == "precise":
        options = {**variant.hardware.session_options, _PRECISE: "1"}
        routing = variant.routing.model_copy(update={"reason": f"computed at {_PRECISE}=1: {why}"})
        hardware = variant.hardware.model_copy(update={"session_options": options})
        return variant.model_copy(update={"hardware": hardware, "routing": routing})
    changes: dict[str, object] = {"reason": f"unproven on this machine: {why}"}
    if treatment == "avoid":
        # To the gateway only what is dominated by nothing and yet not routable: it answers a pin.
        changes |= {"state": "dominated", "dominated_by": None}
    return variant.model_copy(update={"routing": variant.routing.model_copy(update=changes)})
