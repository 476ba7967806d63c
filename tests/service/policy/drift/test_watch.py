from __future__ import annotations

from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np
import pytest

from service.domain.drift import AllowedLoss, Calibration, Distribution, DriftPolicy, VariantReference
from service.policy.drift.pairs import Pair
from service.policy.drift.watch import VariantWatch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.policy.drift.lifecycle import Transition

CALIBRATION = Calibration(
    intercept=0.0, slope=1.0, threshold=0.0, accuracy=0.97, error_floor=0.005, error_slope=0.2, pair_error_slope=0.2
)
ODDS = Distribution((-30.0, 3.0, 4.0, 5.0, 30.0), (100, 100, 100, 100))
REFERENCE = VariantReference(0.97, 2000, AllowedLoss(0.02), CALIBRATION, ODDS)
FULL = VariantReference(0.98, 2000, None, CALIBRATION)
SAME, OTHER = Pair(0.0, 0.05, 0.9, 4.0, 4.0), Pair(1.0, 0.9, 0.9, 4.0, 4.0)


def watch(policy: DriftPolicy | None = None, full: VariantReference | None = FULL) -> VariantWatch:
    return VariantWatch(REFERENCE, full, policy or DriftPolicy())


def pairs(rate: float, count: int, seed: int = 0) -> Iterable[Pair]:
    return (OTHER if is_other else SAME for is_other in np.random.default_rng(seed).random(count) < rate)


def see(watched: VariantWatch, stream: Iterable[Pair]) -> list[Transition]:
    return [found for pair in stream if (found := watched.compared(pair)) is not None]


def test_a_variant_that_breaks_is_quarantined_and_one_that_recovers_is_restored() -> None:
    watched = watch()
    assert see(watched, pairs(0.003, 1000)) == []
    (*_, broken) = see(watched, repeat(OTHER, 12))
    assert (watched.standing.state, broken.after, watched.claim) == ("quarantined", "quarantined", None)
    assert broken.evidence.severe >= DriftPolicy().demote_run_length
    healed = see(watched, pairs(0.003, 900, seed=1))
    assert [found.after for found in healed] == ["restored", "healthy"]
    assert watched.claim == 0.97


def test_a_variant_that_was_long_wrong_is_restored_as_soon_as_one_that_was_so_for_a_moment() -> None:
    needed = []
    for wrong in (20, 3000):
        watched = watch()
        see(watched, repeat(OTHER, wrong))
        needed.append(next(count for count in range(1000) if watched.compared(SAME)))
    assert needed[1] < needed[0] + 150


def test_a_variant_that_is_worse_is_demoted_and_routed_by_the_estimate_of_what_came_since() -> None:
    watched = watch()
    see(watched, pairs(0.005, 600))
    found = see(watched, pairs(0.08, 400, seed=2))
    assert [transition.after for transition in found][-1] == "demoted"
    estimate = watched.estimate()
    assert estimate is not None
    assert estimate.method == "shadow"
    assert watched.claim == pytest.approx(estimate.value)
    assert estimate.value < 0.95, "pairs of the good time must not count"


def test_pairs_of_a_long_good_time_do_not_count_where_full_is_sure() -> None:
    watched = VariantWatch(replace(REFERENCE, allowed=AllowedLoss(0.02, 0.0, -2.0)), FULL)
    see(watched, repeat(SAME, 450))
    see(watched, pairs(0.3, 40, seed=3))
    assert watched.standing.state == "demoted"
    assert 0.0 < watched.report().loss.count <= 40


def test_variant_that_is_as_its_manifest_says_is_seldom_worth_a_closer_look() -> None:
    watched = VariantWatch(replace(REFERENCE, allowed=AllowedLoss(0.02, 0.0, -2.0)), FULL)
    suspected = 0
    for pair in pairs(0.007, 2000, seed=6):
        watched.compared(pair)
        suspected += watched.recent > 4.0
    assert 0 < suspected < 0.1 * 2000


def test_policy_is_followed_with_all_that_is_known_unless_it_asks_another_thing() -> None:
    watched = watch()
    see(watched, [SAME, OTHER, OTHER])
    known, recent = watched.evidence(), watched.recent
    assert watched.follow(DriftPolicy(most="warned", warn_run_length=7.0))
    assert (watched.evidence(), watched.recent, watched.policy.most) == (known, recent, "warned")
    assert not watched.follow(DriftPolicy(drop=0.02))
    assert watched.policy.drop == 0.05


def test_labels_alone_demote_full_and_never_quarantine_it() -> None:
    watched = VariantWatch(FULL, None)
    assert watched.compared(OTHER) is None, "full has no shadow"
    rights = np.random.default_rng(3).random(600) > 0.4
    found = [transition for right in rights if (transition := watched.labelled(float(right)))]
    assert found[-1].after == "demoted"
    assert found[-1].reason.startswith("labels")
    assert watched.claim == pytest.approx(rights[-500:].mean(), abs=0.01)


def test_labels_as_good_as_claimed_demote_nobody() -> None:
    watched, rights = watch(), np.random.default_rng(4).random(3000) < 0.97
    found = [transition for right in rights if (transition := watched.labelled(float(right)))]
    assert {transition.after for transition in found} <= {"warned", "healthy"}
    assert watched.report().accuracy.low < 0.97 < watched.report().accuracy.high


def test_confidence_that_moves_warns_and_calms_again() -> None:
    watched, chance = watch(), np.random.default_rng(5)
    for odds in chance.uniform(2.0, 6.0, 500):
        watched.answered(odds)
    for odds in chance.uniform(-1.0, 2.0, 500):
        watched.answered(odds)
    warned = watched.review()
    assert warned is not None
    assert (warned.after, "confidence" in warned.evidence.shifted) == ("warned", True)
    for odds in np.tile([2.5, 3.5, 4.5, 5.5], 125):
        watched.answered(odds)
    calm = watched.review()
    assert calm is not None
    assert calm.after == "healthy"


def test_inputs_that_moved_are_named_in_the_warning() -> None:
    warned = watch().review(("image",))
    assert warned is not None
    assert "image" in warned.reason


def test_a_hand_sets_any_state_and_the_watch_rests_until_it_lets_go() -> None:
    watched = watch()
    assert watched.set_by_hand("quarantined", "ada").by_hand == "ada"
    assert see(watched, pairs(0.0, 2000)) == []
    assert watched.report().is_held
    watched.let_go()
    assert see(watched, pairs(0.0, 2000))[0].after == "restored"


def test_the_policy_may_only_warn() -> None:
    watched = watch(DriftPolicy(most="warned"))
    assert [found.after for found in see(watched, repeat(OTHER, 50))] == ["warned"]
    assert watched.claim == 0.97


def test_a_variant_without_confidence_is_demoted_by_what_it_disagrees() -> None:
    reference = VariantReference(0.9, 500, AllowedLoss(0.02))
    watched = VariantWatch(reference, VariantReference(0.95, 500), DriftPolicy(most="demoted"))
    see(watched, repeat(Pair(0.3, 0.3), 400))
    assert watched.claim == pytest.approx(0.6)
    assert watched.estimate() is None


def test_the_report_tells_it_all() -> None:
    watched = watch()
    see(watched, [SAME, OTHER])
    watched.labelled(1.0)
    report = watched.report()
    assert (report.state, report.loss.value, report.loss.count, report.allowed_loss) == ("healthy", 0.5, 2, 0.02)
    assert report.distance.value == pytest.approx(0.475)
    assert report.margin.value == pytest.approx(0.9)
    assert (report.accuracy.value, report.claimed_accuracy) == (1.0, 0.97)
    assert (report.estimate, report.confidence) == (None, None)
