from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from loadtests.fitted import FIGURES, FITS, draw_stand_in, fit_stand_in, mean_shape
from loadtests.h2load import LoadError
from loadtests.traces import describe, play, read_trace, repeat, scale_rate

if TYPE_CHECKING:
    from pathlib import Path

MINUTES = ",".join(str(minute) for minute in range(1, 1441))
TIMES = np.array([0.0, 0.5, 1.0, 4.0])
LAYOUTS = {
    "one column": "arrival_s\n10.0\n10.5\n11.0\n14.0\n",
    "no header": "10.0\n10.5\n11.0\n14.0\n",
    "azure": (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:47.1805900,396,109\n"
        "2023-11-16 18:15:47.6805900,879,55\n2023-11-16 18:15:50.6805900,91,16\n"
    ),
    "burstgpt": "Timestamp,Model,Request tokens\n5,ChatGPT,472\n5.5,GPT-4,2\n6,GPT-4,3\n9,ChatGPT,1\n",
    "unordered": "arrival_s\n14.0\n10.5\n11.0\n10.0\n",
    "windows": "\ufeffarrival_s\r\n10.0\r\n\r\n10.5\r\n11.0\r\n14.0\r\n",
    "negative": "-4\n-3.5\n-3\n0\n",
    "recording": "budget_ms,time_s\n20,10\n20,10.5\n20,11\n20,14\n",
    "iso, no header": "2023-11-16T18:15:46Z\n2023-11-16T18:15:46.5Z\n2023-11-16T20:15:47+02:00\n2023-11-16 18:15:50\n",
}


def write(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_arrivals(layout: str, tmp_path: Path) -> None:
    assert read_trace(write(tmp_path, LAYOUTS[layout])) == pytest.approx(TIMES)


@pytest.mark.parametrize("column", ["when", "2"])
def test_a_column_is_chosen_by_name_or_place(column: str, tmp_path: Path) -> None:
    assert read_trace(write(tmp_path, "n,when\n1,10\n2,10.5\n3,11\n4,14\n"), column=column) == pytest.approx(TIMES)


def test_a_trace_of_years_is_described_in_little_memory() -> None:
    shape = describe(np.array([0.0, 0.1, 0.2, 1e12]))
    assert shape.dispersion_1s == pytest.approx(3.0)  # a count of 3 once, and 0 ever after
    assert shape.peak_ratio == pytest.approx(3 / (4 / 1e12))
    with pytest.raises(LoadError, match="arrivals a second"):
        repeat(np.array([0.0, 1e-9]), 60.0)
    with pytest.raises(LoadError, match="first 3 arrivals are all at one moment"):
        play(np.array([0.0, 0.0, 0.0, 9.0]), 2, 1.0)


def test_counts_by_minute_become_that_many_arrivals_in_each_minute(tmp_path: Path) -> None:
    counts = [["3", "0", "5", *["0"] * 1437], ["1", "0", "2", *["0"] * 1437]]
    rows = "\n".join(f"owner,app,f{place},http," + ",".join(row) for place, row in enumerate(counts))
    path = write(tmp_path, f"HashOwner,HashApp,HashFunction,Trigger,{MINUTES}\n{rows}\n")
    times = read_trace(path, seed=1)
    assert len(times) == 11
    assert np.array_equal(times, read_trace(path, seed=1))
    assert not np.array_equal(times, read_trace(path, seed=2))
    assert np.diff(times)[3] > 60.0  # nothing in the second minute


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("arrival_s\n", "0 arrivals"),
        ("arrival_s\n1.0\n", "1 arrivals"),
        ("arrival_s\nsoon\nlater\n", "cannot be read"),
        ("a,b\n1,2\n3,4\n", "no column 'when'"),
        ("id,start\n1,2\n3,4\n", "2 columns .id, start., of which none is called"),
        ("id,time\n1,2\n3\n", "line 3 has 1 columns"),
        ("arrival_s\n1\nnan\n2\n", "line 3: 'nan' is neither"),
        ("nan\n1\n2\n", "line 1: 'nan' is neither"),
        ("5\n5\n5\n", "all at one moment"),
        (f"f,{MINUTES}\n1,2\n", "line 2 has no count"),
        (f"f,{MINUTES}\n1,{','.join(['999999999'] * 1440)}\n", "at most 20,000,000"),
    ],
)
def test_a_file_without_times_is_refused_by_name(text: str, says: str, tmp_path: Path) -> None:
    column = "when" if "when" in says else None
    with pytest.raises(LoadError, match=says) as refused:
        read_trace(write(tmp_path, text), column=column)
    assert "trace.csv" in str(refused.value)


@pytest.mark.parametrize("count", [100, 1859, 1860, 5000])
def test_playing_faster_takes_the_time_asked_for_and_keeps_the_shape(count: int) -> None:
    times = draw_stand_in(FITS["code"], 600.0, 1)
    assert len(times) == 1860
    fast = play(times, count, 10.0)
    assert len(fast) == count
    assert np.all(np.diff(fast) >= 0.0)
    assert 5.0 < fast[-1] < 10.0
    alike = min(count, len(times))
    assert np.diff(fast[:alike]) / fast[1] == pytest.approx(np.diff(times[:alike]) / times[1])


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.5])
def test_scaling_the_rate_keeps_the_length(factor: float) -> None:
    times = draw_stand_in(FITS["conv"], 600.0, 1)
    scaled = scale_rate(times, factor, seed=2)
    assert len(scaled) == pytest.approx(factor * len(times), rel=0.05)
    assert np.all(np.diff(scaled) >= 0.0)
    assert scaled[-1] == pytest.approx(times[-1], rel=0.02)


def test_repetition_fills_the_duration() -> None:
    times = repeat(TIMES, 12.0)
    assert times[:4] == pytest.approx(TIMES)
    assert times[4] == pytest.approx(4.0 + 4.0 / 3.0)
    assert times[-1] < 12.0


@pytest.mark.parametrize("name", FITS)
def test_a_stand_in_has_the_figures_of_its_trace(name: str) -> None:
    fit = FITS[name]
    drawn = mean_shape(fit, range(40))
    for figure in FIGURES:
        assert getattr(drawn, figure) == pytest.approx(getattr(fit.target, figure), rel=0.35), figure
    assert drawn.rate_hz == pytest.approx(fit.target.rate_hz, rel=0.06)


def test_a_fit_comes_closer_the_longer_it_searches() -> None:
    target = FITS["conv"].target
    _, early = fit_stand_in(target, steps=0, draws=3)
    _, late = fit_stand_in(target, steps=40, draws=3)
    assert late < 0.5 * early
