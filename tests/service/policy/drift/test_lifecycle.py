from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.drift import DriftPolicy, DriftState
from service.policy.drift.lifecycle import SEVERITY, Evidence, Standing, advance, let_go, set_by_hand

POLICY = DriftPolicy()
STATES: tuple[DriftState, ...] = get_args(DriftState)
LENGTHS = st.floats(0.0, 1e5)
EVIDENCE = st.builds(
    Evidence,
    drop=LENGTHS,
    severe=LENGTHS,
    label_drop=LENGTHS,
    label_severe=LENGTHS,
    recovery=LENGTHS,
    shifted=st.sampled_from([(), ("image",)]),
    samples=st.integers(0, 1000),
)


@pytest.mark.parametrize(
    ("before", "evidence", "after"),
    [
        ("healthy", Evidence(drop=199.0), None),
        ("healthy", Evidence(drop=200.0), "warned"),
        ("healthy", Evidence(shifted=("image",)), "warned"),
        ("healthy", Evidence(label_drop=3000.0), "demoted"),
        ("healthy", Evidence(severe=3000.0), "quarantined"),
        ("warned", Evidence(drop=3000.0), "demoted"),
        ("warned", Evidence(drop=50.0), None),
        ("warned", Evidence(drop=19.0), "healthy"),
        ("warned", Evidence(drop=19.0, shifted=("image",)), None),
        ("demoted", Evidence(label_severe=3000.0), "quarantined"),
        ("demoted", Evidence(drop=9e9), None),
        ("demoted", Evidence(recovery=500.0), "restored"),
        ("quarantined", Evidence(recovery=499.0), None),
        ("quarantined", Evidence(recovery=500.0), "restored"),
        ("restored", Evidence(drop=200.0), "demoted"),
        ("restored", Evidence(samples=299), None),
        ("restored", Evidence(samples=300), "healthy"),
    ],
)
def test_evidence_moves_a_variant(before: DriftState, evidence: Evidence, after: DriftState | None) -> None:
    transition = advance(Standing(before), evidence, POLICY)
    assert (transition.after if transition else None) == after
    if transition is not None:
        assert (transition.before, transition.evidence, transition.by_hand) == (before, evidence, "")
        assert transition.reason


@given(st.sampled_from(STATES), EVIDENCE)
def test_nothing_moves_what_a_hand_holds(state: DriftState, evidence: Evidence) -> None:
    standing, transition = set_by_hand(Standing("healthy"), state, "ada", evidence)
    assert (transition.after, transition.by_hand) == (state, "ada")
    assert advance(standing, evidence, POLICY) is None
    assert let_go(standing) == Standing(state)


@given(st.sampled_from(STATES), EVIDENCE, st.sampled_from(STATES), st.booleans())
def test_the_policy_and_full_limit_what_is_done(
    state: DriftState, evidence: Evidence, most: DriftState, is_full: bool
) -> None:
    transition = advance(Standing(state), evidence, DriftPolicy(most=most), is_full=is_full)
    if transition is None:
        return
    assert transition.after != state
    is_held_up = is_full and evidence.severe < DriftPolicy().demote_run_length
    severest = min(SEVERITY[most], SEVERITY["demoted"] if is_held_up else 9)
    assert SEVERITY[transition.after] <= severest


def test_labels_are_named_where_they_are_the_stronger_proof() -> None:
    by_labels = advance(Standing(), Evidence(drop=10.0, label_drop=5000.0), POLICY)
    by_pairs = advance(Standing(), Evidence(drop=5000.0, label_drop=10.0), POLICY)
    assert by_labels is not None
    assert by_pairs is not None
    assert by_labels.reason.startswith("labels")
    assert by_pairs.reason.startswith("shadow")


def test_labels_demote_full_at_most_and_witnesses_quarantine_it() -> None:
    by_labels = advance(Standing(), Evidence(label_drop=9e3, label_severe=9e3), POLICY, is_full=True)
    by_witnesses = advance(Standing(), Evidence(drop=9e3, severe=9e3), POLICY, is_full=True)
    assert by_labels is not None
    assert by_witnesses is not None
    assert (by_labels.after, by_witnesses.after) == ("demoted", "quarantined")
    assert by_witnesses.reason.startswith("variants that agree with one another")
