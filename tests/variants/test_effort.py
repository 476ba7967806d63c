"""What a piece of work took: its own peak of memory, not that of what ran before it."""

from __future__ import annotations

import numpy as np
import pytest

from variants.effort import Effort, include_peak, read_peak, reset_peak, watch_effort

MIB = 1024 * 1024
SIZE = 256 * MIB


def hold(size: int) -> None:
    np.ones(size, dtype=np.uint8).sum()


def can_set_back() -> bool:
    hold(SIZE)
    before = read_peak()
    reset_peak()
    return read_peak() < before - SIZE // 2


def test_a_step_has_its_own_peak_and_the_whole_the_highest() -> None:
    if not can_set_back():
        pytest.skip("the kernel does not let the mark be set back here")
    with watch_effort() as whole:
        with watch_effort() as first:
            hold(SIZE)
        with watch_effort() as second:
            hold(MIB)
    assert second.peak_bytes < first.peak_bytes - SIZE // 2
    assert whole.peak_bytes >= first.peak_bytes > SIZE


def test_what_was_held_before_an_inner_step_counts_for_the_outer_one() -> None:
    with watch_effort() as outer:
        hold(SIZE)
        held = read_peak()
        with watch_effort():
            hold(MIB)
    assert outer.peak_bytes >= held > SIZE


def test_another_process_counts_for_the_work_that_it_is_part_of() -> None:
    with watch_effort() as outer:
        include_peak(1 << 60)
    with watch_effort() as later:
        pass
    assert outer.peak_bytes == 1 << 60 > later.peak_bytes > 0


def test_work_that_fails_has_taken_something_too() -> None:
    with pytest.raises(ValueError, match="broken"), watch_effort() as effort:
        raise ValueError("broken")
    assert effort.peak_bytes > 0


def test_effort_reads_as_a_line() -> None:
    assert str(Effort(cpu_s=90.0, peak_bytes=3 << 29)) == "1.5 CPU-minutes, peak memory 1.50 GiB"
