from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from loadtests.scaling.autoscaler import Behavior, Rules
from loadtests.scaling.cli import main
from loadtests.scaling.day import Delays, diurnal, flash_crowds, live
from loadtests.scaling.response import SIGNALS, Replica, Response, measure
from loadtests.simulator.ladder import make_ladder
from loadtests.simulator.policies import always_full
from loadtests.simulator.policy import OURS

VALUES = Path("deploy/helm/tiergate/values.yaml")
CAPACITY_HZ = 10.0
AT_ONCE = Behavior(0.0, 1e6, 1.0, 1000)


def one_for_ten() -> Response:
    """A replica that keeps all promises up to ten requests a second, and of more so many as it can."""
    rates = np.linspace(0.1, 100.0, 1000)
    met = np.minimum(1.0, CAPACITY_HZ / rates)
    figures = {"attainment": met, "accuracy": 0.9 * met, **dict.fromkeys(SIGNALS, 1.0 - met)}
    return Response(rates, figures | {"laneBusyRatio": np.minimum(1.0, rates / CAPACITY_HZ)})


def lived(rate_hz: np.ndarray[tuple[int], np.dtype[np.float64]], start_s: float = 30.0) -> tuple[float, int]:
    rules = Rules(1, 50, {"laneBusyRatio": 0.5}, AT_ONCE, AT_ONCE)
    day = live(rate_hz, one_for_ten(), rules, Delays(start_s=start_s, window_s=15.0), first=2)
    return day.attainment, int(day.replicas[-1])


def test_replicas_follow_a_rate_and_serve_when_they_have_started() -> None:
    rate = np.concatenate([np.full(120, 10.0), np.full(600, 100.0)])
    quick, replicas = lived(rate, start_s=1.0)
    slow, _ = lived(rate, start_s=120.0)
    assert replicas in (20, 21)
    assert 0.9 < quick < 1.0
    assert slow < quick - 0.05


def test_replicas_that_are_not_needed_are_no_longer_paid_for() -> None:
    rate = np.concatenate([np.full(300, 100.0), np.full(300, 10.0)])
    assert lived(rate)[1] == 2


def test_days_have_their_shape_and_their_seed() -> None:
    day, crowds = diurnal(100.0), flash_crowds(100.0)
    assert day.max() == pytest.approx(100.0)
    assert day[0] < 5.0
    assert day[len(day) // 2] > 60.0
    assert crowds.min() == pytest.approx(5.0)
    assert crowds.max() == pytest.approx(100.0)
    assert np.count_nonzero(crowds > 20.0) < 0.2 * len(crowds)
    assert np.array_equal(diurnal(100.0, 3), diurnal(100.0, 3))
    assert not np.array_equal(diurnal(100.0, 3), diurnal(100.0, 4))


def test_a_replica_with_tiers_keeps_its_promise_at_rates_that_full_alone_cannot() -> None:
    ladder = make_ladder("m", {"full": (0.03, 0.92), "small": (0.002, 0.86)})
    alone = make_ladder("m", {"full": (0.03, 0.92)})
    rates = np.array([20.0, 200.0])
    tiers = measure(Replica(ladder, OURS, 0.1, 1.0), rates, 1500)
    full = measure(Replica(alone, always_full.POLICY, 0.1, 1.0), rates, 1500)
    assert tiers.at("attainment", rates).min() > 0.99
    assert full.at("attainment", rates)[1] < 0.5
    assert full.at("queueDepth", rates)[1] > tiers.at("queueDepth", rates)[1]
    assert tiers.at("accuracyGivenUp", rates)[1] > tiers.at("accuracyGivenUp", rates)[0]


def test_the_command_simulates_the_charts_own_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, picture = tmp_path / "scaling.json", tmp_path / "scaling.svg"
    where = ["--values", str(VALUES), "--results", str(results), "--picture", str(picture)]
    assert main([*where, "--requests", "150", "--replicas", "2", "12"]) == 0
    found = json.loads(results.read_text(encoding="utf-8"))["traces"]
    for rows in found.values():
        tiers = [row for row in rows if row["name"] == "tiers"]
        assert max(row["saving"] for row in tiers) > 1.0
        assert all(row["replica_hours"] <= 24.0 * 12 for row in rows)
    assert "replica-hours" in capsys.readouterr().out
    assert picture.read_text(encoding="utf-8").startswith("<svg xmlns=")


def test_values_that_are_not_there_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--values", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err
