from __future__ import annotations

from typing import Any

import pytest

from loadtests.peer_report import HEADER, Line, bare_lines, cells, lines, ratios
from tests.loadtests.peer_documents import make_document, make_rounds


def line_of(server: str, **changes: Any) -> Line:  # noqa: ANN401 - whatever `make_document` takes
    document = make_document(**changes)
    return next(line for line in lines(document) if line.server == server)


def test_ratio_is_taken_within_each_round() -> None:
    own = make_rounds(rate_hz=(100.0, 1000.0, 300.0))
    other = make_rounds(rate_hz=(50.0, 1000.0, 100.0))

    spread = ratios(own, other, "rate_hz")

    assert (spread.median, spread.low, spread.high) == (2.0, 1.0, 3.0)
    assert str(spread) == "2.00 (1.00-3.00)"


def test_ratio_leaves_out_a_round_that_one_server_lacks() -> None:
    spread = ratios(make_rounds(rate_hz=(100.0, 900.0)), make_rounds(rate_hz=(50.0,)), "rate_hz")

    assert (spread.median, spread.high) == (2.0, 2.0)


def test_both_ratios_are_above_one_where_the_gateway_is_ahead() -> None:
    line = line_of("Triton", rate_hz={"tiergate": 300.0, "Triton": 200.0}, p99_s={"tiergate": 0.002, "Triton": 0.003})

    assert line.rate_ratio is not None
    assert line.p99_ratio is not None
    assert line.rate_ratio.median == 1.5
    assert line.p99_ratio.median == pytest.approx(1.5)
    assert line.bar == "met"


@pytest.mark.parametrize(
    ("server", "own_hz", "own_p99_s", "verdict"),
    [
        ("Triton", 1199.0, 0.001, "missed: rate"),
        ("Triton", 1200.0, 0.001, "met"),
        ("Triton", 1200.0, 0.0011, "missed: p99"),
        ("MLServer", 3999.0, 0.0011, "missed: rate, p99"),
        ("MLServer", 4000.0, 0.001, "met"),
        ("BentoML native", 8000.0, 0.001, "met"),
        ("LitServe", 999.0, 0.001, "missed: rate"),
        ("tiergate, pyvoy", 1.0, 0.1, ""),
    ],
)
def test_bar_depends_on_the_server(server: str, own_hz: float, own_p99_s: float, verdict: str) -> None:
    line = line_of(server, rate_hz={"tiergate": own_hz, server: 1000.0}, p99_s={"tiergate": own_p99_s, server: 0.001})

    assert line.bar == verdict


def test_row_with_errors_is_flagged_instead_of_judged() -> None:
    line = line_of("Triton", rate_hz={"tiergate": 9000.0, "Triton": 10.0}, errors={"Triton": 2})

    assert line.bar == "6 errors"  # two in each of three rounds


def test_row_is_flagged_when_the_gateway_itself_had_errors() -> None:
    line = line_of("Triton", rate_hz={"tiergate": 9000.0, "Triton": 10.0}, errors={"tiergate": 1})

    assert line.bar == "not compared: tiergate had errors"


@pytest.mark.parametrize(("p50_s", "verdict"), [(0.00103, "met"), (0.00105, "missed: p50")])
def test_image_may_add_one_millisecond_to_the_bare_call(p50_s: float, verdict: str) -> None:
    line = line_of("tiergate", model="image", p50_s={"tiergate": p50_s}, bare_s=0.00004)

    assert line.over_bare_s == pytest.approx(p50_s - 0.00004)
    assert line.bar == verdict


def test_servers_of_one_cell_are_sorted_by_throughput() -> None:
    document = make_document(rate_hz={"tiergate": 200.0, "Triton": 300.0, "LitServe": 100.0})

    assert [line.server for line in lines(document)] == ["Triton", "tiergate", "LitServe"]


def test_p99_of_few_answers_is_marked() -> None:
    few = cells(line_of("Triton", rate_hz={"tiergate": 1.0, "Triton": 1.0}, requests=152))
    enough = cells(line_of("Triton", rate_hz={"tiergate": 1.0, "Triton": 1.0}, requests=153))

    column = HEADER.index("p99 ms")
    assert few[column] == "1.000*"
    assert enough[column] == "1.000"


def test_cells_match_the_header() -> None:
    line = line_of("Triton", rate_hz={"tiergate": 3000.0, "Triton": 2000.0})

    assert len(cells(line)) == len(HEADER)
    assert dict(zip(HEADER, cells(line), strict=True))["tiergate's rate over it"] == "1.50 (1.50-1.50)"


def test_nothing_is_compared_when_the_gateway_was_not_measured() -> None:
    line = line_of("Triton", rate_hz={"Triton": 2000.0})

    assert (line.rate_ratio, line.p99_ratio, line.bar) == (None, None, "")


def test_bare_call_is_told_and_is_no_server() -> None:
    document = make_document(bare_s=0.000006)

    assert list(bare_lines(document)) == ["mlp: the bare runtime call takes 6 us (p50), 166,667 calls/s"]
    assert "bare runtime call" not in {line.server for line in lines(document)}
