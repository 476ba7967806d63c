"""What a build tells a log."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from variants.progress import BarProgress, LineProgress, show_step

ENDED = r"\d+\.\d s, peak memory \d+ MiB\n"


def test_lines_tell_how_far_a_long_step_is_and_what_it_took() -> None:
    stream = io.StringIO()
    with show_step(LineProgress(stream, every_s=0.0), "train full", 3) as advance:
        for _ in range(3):
            advance()
    said = r"train full: 1 of 3, \d+ s\ntrain full: 2 of 3, \d+ s\ntrain full: " + ENDED
    assert re.fullmatch(said, stream.getvalue())


def test_lines_tell_only_the_end_of_a_short_step() -> None:
    stream = io.StringIO()
    with show_step(LineProgress(stream, every_s=3600.0), "export full", 1) as advance:
        advance()
    assert re.fullmatch("export full: " + ENDED, stream.getvalue())


def test_a_step_that_fails_has_no_end() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="broken"), show_step(LineProgress(stream, every_s=3600.0), "export full", 1):
        raise ValueError("broken")
    assert stream.getvalue() == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_of_steps_beside_each_other_leave_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    progress = BarProgress(stream)
    for _ in range(2):  # the display comes back with the next steps
        with show_step(progress, "prune pruned", 2) as first, show_step(progress, "distil distilled", 2) as second:
            first()
            second()
    assert Console(file=stream).is_terminal
    shown = stream.getvalue()
    assert shown.count("prune pruned: ") == shown.count("distil distilled: ") == 2, "a line each when it is done"
    assert shown.count("prune pruned ") > 0, "a bar while it runs"
