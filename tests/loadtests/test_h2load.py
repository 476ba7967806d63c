from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from loadtests.h2load import LoadError, NothingAnswered, Shot, _read

if TYPE_CHECKING:
    from pathlib import Path

HTTP = Shot("http://127.0.0.1:1/", (), b"", is_grpc=False, answer_bytes=10)
GRPC = Shot("http://127.0.0.1:1/", (), b"", is_grpc=True, answer_bytes=100)


def write_log(folder: Path, *rows: tuple[int, int, int]) -> Path:
    """Write rows of start (microseconds), status and duration (microseconds), as h2load does."""
    log = folder / "log"
    log.write_text("".join(f"{start}\t{status}\t{duration}\n" for start, status, duration in rows))
    return log


def test_rate_counts_from_the_first_request_to_the_last_answer(tmp_path: Path) -> None:
    log = write_log(tmp_path, (0, 200, 1000), (1000, 200, 1000), (2000, 200, 3000), (5000, 200, 5000))

    figures = _read(log, HTTP, 1, 40)

    assert (figures.requests, figures.rate_hz, figures.p50_s, figures.errors) == (4, 400.0, 0.002, 0)


def test_request_cut_off_at_the_end_is_left_out(tmp_path: Path) -> None:
    log = write_log(tmp_path, (0, 200, 1000), (1000, 0, 9000))

    figures = _read(log, HTTP, 1, 10)

    assert (figures.requests, figures.rate_hz, figures.errors) == (1, 1000.0, 0)


def test_failed_requests_are_errors_and_no_throughput(tmp_path: Path) -> None:
    log = write_log(tmp_path, (0, 200, 1000), (0, 503, 10), (0, 0, 10), (0, 0, 10))

    figures = _read(log, HTTP, 1, 10)

    assert (figures.requests, figures.errors, figures.p99_s) == (1, 3, 0.001)


def test_grpc_errors_show_by_the_messages_that_are_missing(tmp_path: Path) -> None:
    log = write_log(tmp_path, *[(at, 200, 1) for at in range(100)])

    assert _read(log, GRPC, 1, 100 * 100).errors == 0
    assert _read(log, GRPC, 1, 99 * 100).errors == 0  # within what the length of answers varies
    assert _read(log, GRPC, 1, 60 * 100).errors == 39
    assert _read(log, GRPC, 1, 0).errors == 100


@pytest.mark.parametrize("rows", [(), ((0, 0, 500),)])
def test_silence_is_told_apart_from_errors(tmp_path: Path, rows: tuple[tuple[int, int, int], ...]) -> None:
    with pytest.raises(NothingAnswered, match="answered nothing"):
        _read(write_log(tmp_path, *rows), HTTP, 1, 0)


def test_run_of_errors_alone_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"answered none of 2 requests with 200 \(the first: status 500\)"):
        _read(write_log(tmp_path, (0, 500, 1), (0, 500, 1)), HTTP, 1, 0)
