"""What others ask of the watch over drift: it says what was done, and goes on watching."""

from __future__ import annotations

import asyncio
import threading
from math import inf
from typing import TYPE_CHECKING

import pytest

from tests.drifting import write_winds
from tests.integration.test_drift import LONGEST_S, serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(1800)


async def test_hand_that_leaves_the_state_as_it_is_does_not_log_another_quarantine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tiergate")
    write_winds(tmp_path / "repository")
    async with serving(tmp_path / "repository") as served:
        for action in ("hold", "quarantine", "release", "restore"):
            assert (await served.act(action)).status_code == 200
    logged = [record.getMessage() for record in caplog.records if record.getMessage().startswith("drift: variant")]
    assert logged == [
        "drift: variant stays healthy",
        "drift: variant quarantined",
        "drift: variant stays quarantined",
        "drift: variant restored",
    ]


async def test_who_never_stops_asking_does_not_keep_the_gateway_from_watching(tmp_path: Path) -> None:
    write_winds(tmp_path / "repository")
    async with serving(tmp_path / "repository") as served:
        drift, is_watched = served.gateway.drift, threading.Event()

        def ask_again() -> None:
            if drift.reports:
                is_watched.set()
            else:
                drift._asking.ask(ask_again)

        drift.reports = {}
        drift._reviewed_s = -inf
        drift._asking.ask(ask_again)
        assert await asyncio.to_thread(is_watched.wait, LONGEST_S)
