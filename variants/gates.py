"""Gates: the thresholds that a built variant must pass before it may be offered.

A variant that misses a gate stays in the manifest as evidence, marked ``rejected`` with the reason; its file is not
published, so that nobody can load, pin or download it. The full variant cannot be rejected: everything is measured
against it, so a build whose full model misses a gate is refused as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from variants.errors import GateFailed
from variants.evidence import Gate

if TYPE_CHECKING:
    from variants.evidence import Accuracy, Parity
    from variants.manifest import Tier
    from variants.plans import Thresholds


def check_gates(tier: Tier, accuracy: Accuracy, parity: Parity | None, thresholds: Thresholds) -> tuple[Gate, ...]:
    """Return every gate of a variant, passed or not; a file that was trained elsewhere has no parity to check."""
    gates = (_accuracy_gate(tier, accuracy, thresholds),)
    return gates if parity is None else (*gates, _parity_gate(tier, parity, thresholds))


def require_full(gates: tuple[Gate, ...], model: str) -> None:
    """Refuse a build whose full variant misses a gate.

    Raises:
        GateFailed: It does.
    """
    missed = [f"{gate.name}: {gate.detail}" for gate in gates if not gate.passed]
    if missed:
        raise GateFailed(f"the full variant of '{model}' misses its gate, so nothing is published; {'; '.join(missed)}")


def _accuracy_gate(tier: Tier, accuracy: Accuracy, thresholds: Thresholds) -> Gate:
    if tier == "full":
        passed = accuracy.value >= thresholds.min_full
        detail = f"{accuracy.metric} {accuracy.value:.4f}, at least {thresholds.min_full:.4f} demanded"
        return Gate(name="accuracy", passed=passed, detail=detail)
    loss = (accuracy.lost - accuracy.gained) / accuracy.rows
    side = "above" if loss < 0 else "below"
    detail = f"{abs(loss) * 100:.2f} points {side} full, at most {thresholds.max_loss * 100:.2f} below allowed"
    return Gate(name="accuracy", passed=loss <= thresholds.max_loss, detail=detail)


def _parity_gate(tier: Tier, parity: Parity, thresholds: Thresholds) -> Gate:
    """Hold float files to their model's numbers, reduced ones only to their answers: rounding is their nature."""
    if tier.endswith("quantized"):
        passed = parity.argmax_agreement >= thresholds.min_agreement
        detail = (
            f"agrees with what it was made from on {parity.argmax_agreement:.4f} of {parity.rows} rows, "
            f"at least {thresholds.min_agreement:.4f} demanded"
        )
    else:
        passed = parity.max_error <= thresholds.max_parity_error
        detail = f"largest error {parity.max_error:.2e}, at most {thresholds.max_parity_error:.0e} allowed"
    return Gate(name="parity", passed=passed, detail=detail)
