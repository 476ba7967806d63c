"""The watch over one model: from what was taken to what routing has to know."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from service.domain.errors import NotSupported
from service.domain.policy_file import DriftRules, ModelPolicy, PolicyFile
from service.domain.verdicts import Happening, Label
from service.engine.drift.keeping import Keeping, KeepingSettings
from service.engine.drift.reports import report_of
from service.engine.drift.shadows import Compared, Shadows
from service.engine.drift.taps import KeptAnswer, Sample
from service.engine.drift.watching import ModelWatch
from service.engine.registry import Registry
from service.engine.repository import Repository
from tests.drifting import write_winds
from tests.service.engine.conftest import Events

if TYPE_CHECKING:
    from pathlib import Path

    from service.engine.loaded import LoadedModel

RIGHT = (np.array([[5.0, 0.0, 0.0, 0.0]], dtype=np.float32),)
OTHER = (np.array([[0.0, 5.0, 0.0, 0.0]], dtype=np.float32),)


class Watched:
    """A loaded model and the watch over it."""

    def __init__(self, root: Path, rules: DriftRules | None = None) -> None:
        write_winds(root)
        policy = PolicyFile(default=ModelPolicy(drift=rules or DriftRules()))
        self.registry = Registry(Repository(root), policy, Events())
        self.registry.load_all()
        self.shadows = Shadows(lambda: True, time.perf_counter)
        self.happened: list[tuple[str, Happening]] = []
        self.watch = self.begin()

    @property
    def model(self) -> LoadedModel:
        return self.registry.get("winds")

    def begin(self) -> ModelWatch:
        reference = self.model.reference
        assert reference is not None
        return ModelWatch(
            self.model,
            reference,
            self.shadows,
            lambda: 1000.0,
            lambda _, name, found: self.happened.append((name, found)),
        )

    def compare(self, times: int, *, agrees: bool, variant: str = "quantized") -> None:
        for _ in range(times):
            sample = Sample(self.model, {}, variant, RIGHT, (variant,))
            self.watch.compared(Compared(sample, RIGHT, {variant: RIGHT if agrees else OTHER}))

    def follow(self, rules: DriftRules) -> None:
        self.registry.apply_policy(PolicyFile(default=ModelPolicy(drift=rules)))
        self.watch.follow_policy()

    @property
    def states(self) -> list[str]:
        return [found.after for _, found in self.happened]


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


def test_full_is_not_judged_by_shadows(watched: Watched) -> None:
    watched.compare(100, agrees=False, variant="full")
    assert watched.happened == []


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
    assert watched.watch.taps.taps["quantized"].shadow_share == pytest.approx(0.01)
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


def test_store_that_is_full_is_given_up_with_an_error_and_the_rest_goes_on(
    watched: Watched, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeping = Keeping(KeepingSettings(tmp_path / "kept.db", most_bytes=2**17), lambda: 1000.0)
    keeping.open()
    assert keeping.share_of(watched.watch) == 1.0
    watched.watch.taps.kept.extend(KeptAnswer(f"request-{number}", "quantized", RIGHT[0]) for number in range(20_000))
    keeping.keep(watched.watch)
    assert not keeping.is_open
    assert keeping.share_of(watched.watch) == 0.0
    assert [record.getMessage() for record in caplog.records] == [
        "predictions are kept no more: labels cannot be joined"
    ]
    with pytest.raises(NotSupported, match="full"):
        keeping.join(watched.watch, [Label("request-1", (0,))])


def test_second_label_for_an_answer_is_not_counted_twice(watched: Watched, tmp_path: Path) -> None:
    keeping = Keeping(KeepingSettings(tmp_path / "kept.db"), lambda: 1000.0)
    keeping.open()
    watched.watch.taps.kept.append(KeptAnswer("a", "quantized", RIGHT[0]))
    keeping.keep(watched.watch)
    for value in (0, "north", 1):
        assert keeping.join(watched.watch, [Label("a", (value,))]).joined == 1
    labels = report_of(watched.watch, watched.shadows, has_store=True).variants[2].labels
    assert labels is not None
    assert (labels.rows, labels.accuracy) == (1, 1.0)
    for values in ((0, 1), (4,), (-1,), ("up",), (True,)):
        assert keeping.join(watched.watch, [Label("a", tuple(values))]).unfit == ("a",)
    keeping.close()
