from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from rich.console import Console

from loadtests.h2load import LoadError
from loadtests.serving.gateways import schedule_of
from loadtests.serving.setting import (
    Calibration,
    Setting,
    at_rate,
    read_model_policy,
    write_model_policy,
)
from loadtests.serving_bench import main, parse, run_parts, setting_of
from loadtests.simulator.event_loop import LoopCosts
from loadtests.simulator.fleet import Machine
from service.domain.policy_file import ModelPolicy
from tests.builders import SUMS, write_repository

if TYPE_CHECKING:
    from pathlib import Path


def test_a_policy_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    policy = ModelPolicy(variants=("full",), max_batch_size=4)
    path = write_model_policy(tmp_path / "p.yaml", "m", policy)
    assert read_model_policy(path, "m") == policy
    assert read_model_policy(path, "other") == ModelPolicy()


def test_a_policy_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("models: {m: {nonsense: 1}}")
    with pytest.raises(LoadError, match=r"p\.yaml cannot be used"):
        read_model_policy(path, "m")


def test_tuned_policies_are_found_by_load(tmp_path: Path) -> None:
    for name, size in (("one", 1), ("rest", 2)):
        write_model_policy(tmp_path / name, "m", ModelPolicy(max_batch_size=size))
    setting = setting_of(parse(["--model", "m", "--policy", f"1:{tmp_path / 'one'}", str(tmp_path / "rest")]))
    one, rest = setting.tuned(1.0), setting.tuned(3.0)
    assert one is not None
    assert rest is not None
    assert (one.max_batch_size, rest.max_batch_size) == (1, 2)
    assert setting_of(parse([])).tuned(1.0) is None


def test_a_narrowed_setting_narrows_every_policy_that_names_no_variants(tmp_path: Path) -> None:
    root = write_repository(tmp_path)
    setting = replace(Setting(root, SUMS.name, tmp_path), variants=("full",))
    assert setting.ladder().names == ("full",)
    assert setting.narrowed(ModelPolicy()).variants == ("full",)
    assert setting.narrowed(ModelPolicy(variants=("quantized",))).variants == ("quantized",)
    with pytest.raises(LoadError, match=r"model 'sums' has .*, not huge"):
        replace(setting, variants=("huge",)).ladder()


def test_parts_of_another_build_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_repository(tmp_path)
    parsed = parse(["--repository", str(root), "--model", SUMS.name, "--results", str(tmp_path / "r.json")])
    parsed.part = []
    parts = {"idle": {"key": "another"}}
    run_parts(parsed, parts, Console())
    assert parts == {}
    assert "idle: left out from now on" in capsys.readouterr().out


def test_a_load_that_is_no_number_is_refused() -> None:
    with pytest.raises(LoadError, match="'high' is no load"):
        setting_of(parse(["--policy", "high:file.yaml"]))


def test_arrivals_are_played_at_the_rate() -> None:
    times_s = at_rate(np.array([0.0, 1.0, 5.0, 6.0, 10.0]), 40, 20.0)
    assert len(times_s) == 40
    assert times_s[-1] <= 2.0


def test_stand_ins_are_played_without_trace_files(tmp_path: Path) -> None:
    assert set(Setting(tmp_path, "m", tmp_path).arrivals()) == {"code stand-in", "conv stand-in"}


def test_warm_up_comes_before_the_arrivals_and_is_marked(tmp_path: Path) -> None:
    setting = Setting(tmp_path, "m", tmp_path, budget_s=0.05)
    schedule = schedule_of(setting, np.array([0.0, 0.1]), rows=7)
    assert schedule.warmups == 20
    assert schedule.times_s[20:] == pytest.approx([0.5, 0.6])
    assert schedule.times_s[19] < 0.5


def test_calibration_holds_by_default_a_machine_that_learns() -> None:
    assert Calibration().machine == Machine(is_learning=True)
    assert LoopCosts(0.1, 0.2).without_unread() == LoopCosts(0.1, 0.2, knows_unread=True)


def test_a_model_that_is_not_there_is_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "r.json"
    assert main(["--repository", str(tmp_path), "--results", str(results), "--part", "simulated"]) == 2
    assert "no model 'digits'" in capsys.readouterr().err
    assert not results.exists()


def test_results_of_something_else_are_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "r.json"
    results.write_text(json.dumps({"mine": 1}))
    assert main(["--report-only", "--results", str(results)]) == 2
    assert "holds no results of this benchmark" in capsys.readouterr().err
