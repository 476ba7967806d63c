"""Full against the others: who is blamed where they differ, and whose word counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.drift import AllowedLoss, Calibration, DriftPolicy, DriftState, VariantReference
from service.policy.drift.classification import Classification
from service.policy.drift.pairs import Pair
from service.policy.drift.watch import VariantWatch
from service.policy.drift.witnesses import Member, Panel, Word, blame_full, choose_witnesses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

TIERS = {
    "full": "full",
    "quantized": "quantized",
    "pruned": "pruned",
    "pruned-quantized": "pruned-quantized",
    "distilled": "distilled",
    "distilled-quantized": "distilled-quantized",
}
ALLOWED = {
    "quantized": 0.005,
    "pruned": 0.03,
    "pruned-quantized": 0.035,
    "distilled": 0.04,
    "distilled-quantized": 0.045,
}
SHARES = st.floats(0.0, 1.0)
ROWS = 800


def member(name: str) -> Member:
    return Member(name, TIERS[name], AllowedLoss(ALLOWED[name]))


def panel_of(*names: str, policy: DriftPolicy | None = None) -> Panel:
    calibration = Calibration(0.0, 1.0, 0.0, 0.97, 0.005, 0.2, 0.2)
    full = VariantReference(0.98, 2000, None, calibration)
    watches = {
        name: VariantWatch(
            VariantReference(0.97, 2000, AllowedLoss(ALLOWED[name]), calibration), full, policy or DriftPolicy()
        )
        for name in names
    }
    panel = Panel("full", TIERS, watches)
    watches["full"] = VariantWatch(full, None, policy or DriftPolicy(), allowed_blame=panel.allowed_blame())
    return panel


def see(panel: Panel, classes: Mapping[str, NDArray[np.int64]], judged: str) -> list[tuple[str, DriftState]]:
    """Show rows, answered by every variant with these classes (rows,), as the gateway does; return what happened."""
    outputs = {name: [np.eye(4, dtype=np.float32)[found] * 9.0] for name, found in classes.items()}
    compare = Classification().compare
    beside = {name: compare(outputs[name], outputs[judged]) for name in classes}
    with_full = {name: compare(outputs["full"], outputs[name]) for name in classes}
    happened: list[tuple[str, DriftState]] = []
    for row, pair in enumerate(beside["full"]):
        asked = panel.witnesses_of(judged) if panel.is_apart(judged, pair) else ()
        words = [Word(beside[name][row].loss, with_full[name][row].loss) for name in asked]
        happened += [(whom, found.after) for whom, found in panel.compared(judged, pair, words)]
    return happened


def answers(wrong: Mapping[str, float], seed: int = 0) -> dict[str, NDArray[np.int64]]:
    """Return classes (rows,) of every variant, each wrong at its own share of rows, independently."""
    chance = np.random.default_rng(seed)
    truth = chance.integers(0, 4, ROWS)
    found = {}
    for name in TIERS:
        is_wrong = chance.random(ROWS) < wrong.get(name, 0.0)
        found[name] = np.where(is_wrong, (truth + chance.integers(1, 4, ROWS)) % 4, truth)
    return found


def states(panel: Panel) -> dict[str, DriftState]:
    return {name: watch.standing.state for name, watch in panel.watches.items() if watch.standing.state != "healthy"}


@pytest.mark.parametrize(
    ("name", "others", "wanted"),
    [
        ("pruned", ("quantized", "distilled", "distilled-quantized"), {"quantized", "distilled"}),
        ("quantized", ("pruned", "pruned-quantized", "distilled"), {"pruned", "distilled"}),
        ("pruned-quantized", ("quantized", "distilled", "distilled-quantized"), {"quantized", "distilled"}),
        ("pruned-quantized", ("quantized", "distilled-quantized"), set()),  # one faulty kernel would speak for both
        ("pruned", ("pruned-quantized",), set()),
        ("pruned", (), set()),
    ],
)
def test_witnesses_are_of_other_networks_and_not_all_of_one_arithmetic(
    name: str, others: tuple[str, ...], wanted: set[str]
) -> None:
    assert {item.name for item in choose_witnesses(member(name), map(member, others))} == wanted


@given(SHARES, st.lists(st.tuples(SHARES, SHARES), max_size=3))
def test_blame_is_never_more_than_any_variant_differs_from_full(loss: float, said: list[tuple[float, float]]) -> None:
    blame = blame_full(Pair(loss, loss), [Word(*item) for item in said])
    assert 0.0 <= blame <= min([loss, *(from_full for _, from_full in said)])
    assert blame == 0.0 or said


@pytest.mark.parametrize(
    ("said", "blame"),
    [([], 0.0), ([(0, 1)], 1.0), ([(1, 0)], 0.0), ([(1, 1)], 0.0), ([(0, 1), (0, 1)], 1.0), ([(0, 1), (1, 0)], 0.0)],
)
def test_full_is_blamed_where_all_witnesses_side_with_the_variant(said: list[tuple[int, int]], blame: float) -> None:
    assert blame_full(Pair(1.0, 1.0), [Word(*item) for item in said]) == blame


@pytest.mark.parametrize("judged", ["pruned", "quantized", "distilled-quantized"])
@pytest.mark.parametrize(("wrong", "state"), [(0.12, "demoted"), (0.9, "quarantined")])
def test_damaged_full_is_found_and_no_smaller_variant_suffers(judged: str, wrong: float, state: DriftState) -> None:
    panel = panel_of("quantized", "pruned", "distilled", "distilled-quantized", policy=DriftPolicy(severe_drop=0.3))
    see(panel, answers({"full": wrong}), judged)
    assert states(panel) == {"full": state}
    claim = panel.watches["full"].claim
    assert (claim is None) == (state == "quarantined")
    assert claim is None or 0.7 < claim < 0.95


@pytest.mark.parametrize("judged", ["pruned", "quantized", "distilled-quantized"])
def test_damaged_variant_is_still_found_and_full_is_not_blamed(judged: str) -> None:
    panel = panel_of("quantized", "pruned", "distilled", "distilled-quantized")
    see(panel, answers({judged: 0.4}), judged)
    assert states(panel) == {judged: "quarantined"}
    blamed = panel.watches["full"].report().loss
    assert blamed.count > 0
    assert blamed.value < 0.01


def test_variants_of_one_kind_that_fail_alike_do_not_blame_full_while_its_quantized_form_says_the_same() -> None:
    panel = panel_of("quantized", "pruned", "distilled")
    found = answers({})
    found["pruned"] = np.where(np.arange(ROWS) % 3 == 0, (found["full"] + 1) % 4, found["full"])
    found["distilled"] = found["pruned"]
    see(panel, found, "pruned")
    assert states(panel) == {"pruned": "quarantined"}


def test_with_one_smaller_variant_full_is_believed() -> None:
    panel = panel_of("pruned")
    assert (panel.nearest(), panel.witnesses_of("pruned"), panel.allowed_blame()) == ("", (), 0.0)
    see(panel, answers({"full": 0.9}), "pruned")
    assert states(panel) == {"pruned": "quarantined"}


def test_a_quarantined_variant_is_no_witness() -> None:
    panel = panel_of("pruned", "distilled")
    assert panel.witnesses_of("pruned") == ("distilled",)
    panel.watches["distilled"].set_by_hand("quarantined", "ada")
    assert panel.witnesses_of("pruned") == ()


def test_full_that_is_whole_again_is_restored_and_judges_again() -> None:
    panel = panel_of("quantized", "pruned", "distilled")
    see(panel, answers({"full": 0.9}), "quantized")
    assert panel.is_full_doubted
    happened = see(panel, answers({}, seed=1), "quantized")
    assert happened == [("full", "restored"), ("full", "healthy")]
    see(panel, answers({"pruned": 0.9}, seed=2), "pruned")
    assert states(panel) == {"pruned": "quarantined"}


def test_while_full_is_in_doubt_nobody_is_judged_by_it_and_estimates_go_by_confidence() -> None:
    panel = panel_of("quantized", "pruned")
    see(panel, answers({"full": 0.9}), "pruned")
    see(panel, answers({"full": 0.9, "pruned": 0.9}), "pruned")
    assert states(panel) == {"full": "quarantined"}
    watch = panel.watches["pruned"]
    for _ in range(50):
        watch.answered(4.0)
    estimate = watch.estimate()
    assert estimate is not None
    assert estimate.method == "confidence"


def test_full_that_labels_demoted_still_judges_and_agreement_does_not_restore_it() -> None:
    panel = panel_of("quantized", "pruned")
    for _ in range(100):
        panel.watches["full"].labelled(0.0)
    assert (states(panel), panel.is_full_doubted) == ({"full": "demoted"}, False)
    see(panel, answers({}), "pruned")
    assert states(panel) == {"full": "demoted"}
    see(panel, answers({"pruned": 0.9}), "pruned")
    assert states(panel) == {"full": "demoted", "pruned": "quarantined"}


def test_usual_disagreement_demotes_nobody() -> None:
    panel = panel_of("quantized", "pruned", "distilled")
    for seed in range(4):
        found = answers({"full": 0.02, "quantized": 0.004, "pruned": 0.01, "distilled": 0.02}, seed)
        found["quantized"] = np.where(np.arange(ROWS) % 300 == 0, found["quantized"], found["full"])
        see(panel, found, "quantized")
        assert set(states(panel).values()) <= {"warned"}
