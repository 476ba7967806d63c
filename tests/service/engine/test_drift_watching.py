"""The watch over one model: from what was taken to what routing has to know."""

from __future__ import annotations

import time
from dataclasses import replace
from math import exp
from typing import TYPE_CHECKING

import pytest

from service.domain.policy_file import DriftRules
from service.domain.verdicts import ACTIONS
from service.engine.drift.reports import report_of
from service.engine.drift.shadows import Compared
from service.engine.drift.taps import Sample
from tests.service.engine.watched import OTHER, RIGHT, Watched

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "repository")


def test_disagreement_with_full_warns_then_demotes_then_quarantines(watched: Watched) -> None:
    watched.compare(30, agrees=False)
    assert watched.states[-1] == "quarantined"
    verdict = watched.watch.verdicts()["quantized"]
    assert verdict.is_out
    assert "loss 1.000 against full" in verdict.why
    assert set(watched.watch.verdicts()) == {"quantized"}


def test_agreement_with_full_changes_nothing(watched: Watched) -> None:
    watched.compare(2000, agrees=True)
    assert watched.happened == []
    assert watched.watch.verdicts() == {}


def test_report_shows_how_far_the_scores_lie_from_fulls_and_how_sure_the_variant_is(watched: Watched) -> None:
    watched.compare(10, agrees=True)
    watched.compare(10, agrees=False, variant="pruned")
    shown = {item.variant: item for item in report_of(watched.watch, watched.shadows, has_store=True).variants}
    sure = (exp(5.0) - 1.0) / (exp(5.0) + 3.0)  # of the two classes that have all but the rest
    assert shown["quantized"].score_distance == 0.0
    assert shown["pruned"].score_distance == pytest.approx(sure)
    assert shown["quantized"].margin == pytest.approx(sure)
    assert (shown["full"].score_distance, shown["full"].margin) == (None, None)


def test_report_says_that_a_share_of_none_compares_nothing(watched: Watched) -> None:
    watched.follow(DriftRules(shadow_share=0.0))
    watched.watch.set_shares(1.0)
    assert all(tap.shadow_share == 0.0 for tap in watched.watch.taps.taps.values())
    notes = report_of(watched.watch, watched.shadows, has_store=True).notes
    assert "no shadow runs: the policy has drift.shadow_share 0; only labels and confidences tell" in notes


def test_full_is_not_judged_by_shadows(watched: Watched) -> None:
    watched.compare(100, agrees=False, variant="full")
    assert watched.happened == []


def test_full_that_all_others_contradict_is_quarantined_and_nobody_else(watched: Watched) -> None:
    watched.contradict(40)
    assert {name for name, _ in watched.happened} == {"full"}
    assert watched.watch.verdicts()["full"].is_out
    assert "loss 1.000 against other variants" in watched.watch.verdicts()["full"].why
    report = report_of(watched.watch, watched.shadows, has_store=True)
    assert "'full' is in doubt: meanwhile no variant is judged by it" in report.notes
    found = {item.variant: item for item in report.variants}
    assert (found["full"].agreement, found["quantized"].agreement) == (0.0, None)
    assert found["full"].scores["shadow"] >= 1.0
    watched.compare(30, agrees=False)
    assert {name for name, _ in watched.happened} == {"full"}


def test_who_differs_from_full_where_no_witness_is_in_memory_is_judged_by_full(watched: Watched) -> None:
    sample = Sample(watched.model, {}, "quantized", RIGHT, ("quantized",), time.perf_counter())
    for _ in range(30):
        watched.watch.compared(Compared(sample, OTHER, {"quantized": RIGHT}, {}))
    assert set(watched.watch.verdicts()) == {"quantized"}


def test_witnesses_are_summoned_where_an_answer_differs_from_full(watched: Watched) -> None:
    summon = watched.watch.taps.summon
    assert summon is not None
    assert summon("quantized", RIGHT, OTHER) == ("pruned",)
    assert summon("quantized", RIGHT, RIGHT) == ()


def test_answers_of_full_are_run_on_the_variant_that_differs_least_from_it(watched: Watched) -> None:
    watched.watch.taps.taps["full"].seen = 1000
    watched.watch.set_shares(1.0)
    (name,) = watched.watch.taps.taps["full"].reversed_shares
    assert name == watched.watch.panel.nearest()
    assert watched.watch.taps.taps["full"].reversed_shares[name] == pytest.approx(2.0 / 500.0)


def test_variant_that_long_agreed_is_looked_at_once_a_second_and_at_its_first_difference_more(watched: Watched) -> None:
    watched.compare(2000, agrees=True)
    tap = watched.watch.taps.taps["quantized"]
    for _ in range(20):
        tap.seen += 1000
        watched.watch.set_shares(1.0)
    assert watched.watch.rates_hz["quantized"] == pytest.approx(1000.0, rel=0.01)
    assert tap.shadow_share == pytest.approx(0.001, rel=0.01)
    watched.compare(1, agrees=False)
    watched.watch.set_shares(1.0)
    assert tap.shadow_share > 0.005


def test_traffic_that_comes_back_after_a_pause_is_taken_no_more_of_than_was_meant(watched: Watched) -> None:
    tap = watched.watch.taps.taps["quantized"]
    tap.seen = 1
    watched.watch.set_shares(1.0)
    assert tap.shadow_share == 1.0
    assert tap.shadow_allowance.limit == 5.0
    for _ in range(60):
        watched.watch.set_shares(1.0)
    assert tap.shadow_allowance.limit == 5.0  # a burst each minute is compared too, not only its first request
    assert tap.watch_allowance.limit <= 50.0


def test_full_that_is_out_comes_back_by_what_others_answer(watched: Watched) -> None:
    watched.contradict(40)
    watched.watch.taps.taps["pruned"].seen = 100
    watched.watch.set_shares(1.0)
    assert watched.watch.taps.taps["pruned"].shadow_share > 0.01
    for _ in range(100):
        watched.compare(1, agrees=True)
    assert watched.states[-1] == "restored"


def test_answer_from_before_a_hand_restored_full_does_not_blame_it(watched: Watched) -> None:
    watched.watch.act("full", "restore", "hand")
    watched.contradict(40, taken_s=0.0)
    assert watched.states == ["restored"]


def test_policy_that_changes_keeps_what_witnesses_may_say_of_full(watched: Watched) -> None:
    allowed = watched.watch.watches["full"].allowed_blame
    assert allowed > 0.0
    watched.follow(DriftRules(drop=0.04))
    assert watched.watch.watches["full"].allowed_blame == allowed
    watched.contradict(40)
    assert set(watched.watch.verdicts()) == {"full"}


def test_policy_that_asks_the_same_of_the_tests_keeps_what_is_known(watched: Watched) -> None:
    watched.compare(2, agrees=False)
    known = watched.watch.watches["quantized"].evidence()
    watched.follow(DriftRules(most="demote", demote_run_length=3000.0, shadow_share=0.5))
    assert watched.watch.watches["quantized"].evidence() == known
    watched.compare(30, agrees=False)
    assert watched.states[-1] == "demoted"


def test_demoted_variant_loses_its_claim(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "repository", DriftRules(most="demote"))
    watched.compare(30, agrees=False)
    verdict = watched.watch.verdicts()["quantized"]
    assert (verdict.state, verdict.is_out) == ("demoted", False)
    assert verdict.accuracy is not None
    assert verdict.accuracy < 0.1


def test_quarantined_variant_is_asked_beside_the_others_and_others_are_asked_more_under_suspicion(
    watched: Watched,
) -> None:
    for tap in watched.watch.taps.taps.values():
        tap.seen = 1000
    watched.watch.set_shares(1.0)
    assert watched.watch.taps.taps["quantized"].shadow_share == pytest.approx(2.0 / 500.0)
    watched.compare(2, agrees=False)
    watched.watch.set_shares(1.0)
    assert watched.watch.taps.taps["quantized"].shadow_share > 0.02
    watched.compare(30, agrees=False)
    watched.watch.set_shares(1.0)
    assert "quantized" in watched.watch.taps.taps["full"].reversed_shares
    assert "quantized" not in watched.watch.taps.taps["quantized"].reversed_shares


def test_labels_alone_find_a_drop_even_of_full(watched: Watched) -> None:
    for _ in range(60):
        watched.watch.labelled("full", 0.0)
    assert watched.states[-1] == "demoted"  # there is no bigger one to go to
    assert not watched.watch.verdicts()["full"].is_out


def test_policy_none_takes_back_what_drift_did_and_leaves_what_a_hand_holds(watched: Watched) -> None:
    watched.compare(30, agrees=False)
    watched.watch.act("pruned", "quarantine", "hand")
    watched.follow(DriftRules(most="none"))
    assert set(watched.watch.verdicts()) == {"pruned"}
    watched.watch.set_shares(1.0)
    assert all(tap.most == 0.0 for tap in watched.watch.taps.taps.values())


def test_stricter_policy_bounds_what_was_done_before_it(watched: Watched) -> None:
    watched.compare(30, agrees=False)
    watched.follow(DriftRules(most="warn"))
    assert watched.watch.verdicts()["quantized"].state == "warned"
    assert not watched.watch.verdicts()["quantized"].is_out


def test_reload_goes_on_where_the_watch_stood(watched: Watched) -> None:
    watched.compare(30, agrees=False)
    before = watched.watch
    watched.model.believe(before.verdicts())
    watched.registry.load("winds")
    assert watched.model.verdicts["quantized"].is_out
    watched.watch = watched.begin()
    watched.watch.take_over(before)
    assert watched.watch.verdicts() == before.verdicts()
    assert report_of(watched.watch, watched.shadows, has_store=False).variants[2].history[-1].after == "quarantined"


def test_report_says_what_is_not_watched(watched: Watched) -> None:
    notes = report_of(watched.watch, watched.shadows, has_store=False).notes
    assert "no estimate without labels: the manifest has no calibration" in notes
    assert "no labels: the gateway keeps no predictions (--predictions)" in notes
    watched.model.evict("full")
    watched.model.drop("full")
    notes = report_of(watched.watch, watched.shadows, has_store=True).notes
    assert "no shadow runs now: variant 'full' is not in memory, and none is evicted for it" in notes


def test_answer_from_before_a_hand_restored_the_variant_tells_nothing(watched: Watched) -> None:
    watched.watch.act("quantized", "restore", "hand")
    watched.compare(30, agrees=False, taken_s=0.0)
    assert watched.states == ["restored"]
    watched.compare(30, agrees=False)
    assert watched.states[-1] == "quarantined"


def test_every_action_by_hand_stands_in_the_history(watched: Watched) -> None:
    for action in ACTIONS:
        watched.watch.act("quantized", action, f"hand: {action}")
    assert [found.evidence for found in watched.watch.history["quantized"]] == [
        "set by hand: quarantine",
        "set by hand: restore",
        "set by hand: hold",
        "released by hand: release",
    ]


def test_reload_with_another_claim_for_the_same_file_judges_anew_by_it(watched: Watched) -> None:
    watched.compare(30, agrees=False)
    before = watched.watch
    watched.watch = watched.begin()
    found = watched.watch.reference
    watched.watch.watches["quantized"] = replace(
        watched.watch.watches["quantized"], reference=replace(found.variants["quantized"], accuracy=0.5)
    )
    watched.watch.take_over(before)
    watch = watched.watch.watches["quantized"]
    assert (watch.reference.accuracy, watch.standing.state) == (0.5, "quarantined")
    assert watched.watch.watches["pruned"] is before.watches["pruned"]


def test_quarantined_variant_that_is_not_in_memory_is_noted(watched: Watched) -> None:
    watched.compare(30, agrees=False)
    watched.model.evict("quantized")
    watched.model.drop("quantized")
    notes = report_of(watched.watch, watched.shadows, has_store=True).notes
    assert any("'quantized' is out and not in memory" in note for note in notes)
