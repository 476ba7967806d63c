"""What a build tells a log."""

from __future__ import annotations

import io
import re

from variants.progress import LineProgress


def test_lines_tell_how_far_a_long_step_is_and_when_it_ends() -> None:
    stream = io.StringIO()
    with LineProgress(stream, every_s=0.0).task("train full", 3) as advance:
        for _ in range(3):
            advance()
    assert re.fullmatch(r"train full: 1 of 3, 0 s\ntrain full: 2 of 3, 0 s\ntrain full: \d+\.\d s\n", stream.getvalue())


def test_lines_tell_only_the_end_of_a_short_step() -> None:
    stream = io.StringIO()
    with LineProgress(stream, every_s=3600.0).task("export full", 1) as advance:
        advance()
    assert re.fullmatch(r"export full: \d+\.\d s\n", stream.getvalue())
