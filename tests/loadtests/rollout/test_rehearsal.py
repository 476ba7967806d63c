"""Real gateways replaced under load: in few seconds what ``make bench-rollout`` does for long."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from loadtests.rollout.cli import main
from tests.builders import write_repository

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def rehearse(tmp_path: Path, *flags: str) -> int:
    write_repository(tmp_path / "repository")
    where = ["--repository", str(tmp_path / "repository"), "--model", "sums", "--work", str(tmp_path / "work")]
    return main([*where, "--pods", "1", "--restarts", "2", "--rate", "40", *flags])


def test_no_request_fails_while_gateways_are_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "rollout.json"
    # Between the last who hears of the change and the end of the grace a busy machine may stand still for a while.
    status = rehearse(tmp_path, "--lag-s", "0.5", "--pre-stop-s", "2", "--grace-s", "2", "--results", str(results))
    found = json.loads(capsys.readouterr().out)
    assert (status, found["failed"], found["bad_exits"]) == (0, {}, []), found["first_failures"]
    assert found["restarts"] == 2
    assert min(found["sent"].values()) > 10
    assert json.loads(results.read_text(encoding="utf-8"))["sent"] == found["sent"]


def test_requests_fail_where_nobody_waits_for_the_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rehearse(tmp_path, "--lag-s", "3", "--pre-stop-s", "0", "--grace-s", "0") == 1
    found = json.loads(capsys.readouterr().out)
    assert sum(found["failed"].values()) > 0
    assert not found["bad_exits"]
