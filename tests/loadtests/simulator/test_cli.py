from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from loadtests.simulator.cli import main

if TYPE_CHECKING:
    from pathlib import Path

SMALL = ["--requests", "300", "--loads", "0.5,2", "--policies", "always-full,tiergate", "--seed", "4"]


def test_json_holds_every_load_and_policy_with_the_bound(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--cv", "4", "--exact", "--json"]) == 0
    documents = json.loads(capsys.readouterr().out)
    assert [item["load"] for item in documents] == [0.5, 2.0]
    for item in documents:
        assert [policy["policy"] for policy in item["policies"]] == ["always-full", "tiergate"]
        assert all(policy["expected_accuracy"] <= item["oracle_bound"] + 1e-7 for policy in item["policies"])


def test_the_table_names_policies_and_the_trace_is_scaled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s\n" + "\n".join(str(moment) for moment in range(50)))
    assert main(["--trace", str(trace), "--loads", "1", "--policies", "random,slackfit", "--no-oracle"]) == 0
    out = capsys.readouterr().out
    assert "random" in out
    assert "slackfit" in out
    assert "no schedule exceeds" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policies", "nope"], "no policy is called nope"),
        (["--trace", "/nowhere.csv"], "trace /nowhere.csv cannot be read"),
        (["--model", "/nowhere"], "cannot be read"),
    ],
)
def test_what_cannot_be_done_is_said_on_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--requests", "50", "--loads", "1", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
