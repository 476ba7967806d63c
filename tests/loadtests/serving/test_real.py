from __future__ import annotations

from typing import Any

import pytest

from loadtests.serving.real import median_run
from loadtests.serving.report import text
from tests.loadtests.serving.documents import make_parts


def run(attainment: float, *, is_valid: bool = True) -> dict[str, Any]:
    return {"attainment": attainment, "is_valid": is_valid}


@pytest.mark.parametrize(
    ("runs", "attainment"),
    [
        ([run(0.9)], 0.9),
        ([run(1.0), run(0.9), run(0.95)], 0.95),
        ([run(1.0), run(0.9)], 0.9),
        ([run(0.2, is_valid=False), run(0.3, is_valid=False), run(0.9)], 0.9),
        ([run(0.2, is_valid=False), run(0.3, is_valid=False), run(0.1, is_valid=False)], 0.2),
    ],
)
def test_the_run_of_the_median_attainment_stands_for_all(runs: list[dict[str, Any]], attainment: float) -> None:
    found = median_run(runs)
    assert found["attainment"] == attainment
    assert found["attainments"] == [item["attainment"] for item in runs]


def test_table_shows_how_far_runs_lie_apart() -> None:
    parts = make_parts()
    parts["real"]["rows"][0]["real"] |= {"attainments": [0.99, 0.9, 1.0]}
    assert "| 99.00 (90.00-100.00) |" in text(parts)
