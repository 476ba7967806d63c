"""Gates pass and miss where their thresholds say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from variants.errors import GateFailed
from variants.evidence import Accuracy, Parity
from variants.gates import check_gates, require_full
from variants.recipe import Thresholds

if TYPE_CHECKING:
    from variants.manifest import Tier

THRESHOLDS = Thresholds(min_full=0.98, max_loss=0.03, max_parity_error=1e-3, min_agreement=0.97)


def accuracy(value: float, lost: int = 0) -> Accuracy:
    return Accuracy(
        metric="accuracy", dataset="made up", dataset_sha256="0" * 64, rows=100, value=value, low=0.0, high=1.0,
        ratio_to_full=1.0, flips=lost, lost=lost, gained=0, mcnemar_p=1.0, non_inferiority=(), kl_to_full=0.0,
        calibration_error=0.0,
    )  # fmt: skip


def parity(error: float = 0.0, agreement: float = 1.0) -> Parity:
    return Parity(rows=100, max_error=error, mean_error=0.0, argmax_agreement=agreement)


@pytest.mark.parametrize(
    ("tier", "measured", "found", "passed"),
    [
        ("full", accuracy(0.98), parity(), (True, True)),
        ("full", accuracy(0.97), parity(), (False, True)),
        ("pruned", accuracy(0.95, lost=3), parity(), (True, True)),
        ("pruned", accuracy(0.94, lost=4), parity(0.01), (False, False)),
        ("quantized", accuracy(0.98), parity(0.4, 0.97), (True, True)),
        ("quantized", accuracy(0.98), parity(0.4, 0.96), (True, False)),
    ],
)
def test_gates_pass_at_their_thresholds(
    tier: Tier, measured: Accuracy, found: Parity, passed: tuple[bool, bool]
) -> None:
    gates = check_gates(tier, measured, found, THRESHOLDS)
    assert tuple(gate.passed for gate in gates) == passed


def test_full_that_misses_its_gate_refuses_the_build_with_the_numbers() -> None:
    gates = check_gates("full", accuracy(0.97), parity(), THRESHOLDS)
    with pytest.raises(GateFailed, match=r"'digits' misses its gate.*accuracy 0\.9700, at least 0\.9800 demanded"):
        require_full(gates, "digits")


def test_full_that_passes_is_let_through() -> None:
    require_full(check_gates("full", accuracy(0.99), parity(), THRESHOLDS), "digits")
