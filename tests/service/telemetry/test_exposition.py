from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import generate_latest

from service.telemetry.exposition import Scrape, between, read_scrape
from service.telemetry.families import Families

EDGES = (0.001, 0.01, 0.1)


def scrape(*values: float, name: str = "wait_seconds") -> Scrape:
    """Return an exposition with one histogram of these values."""
    families = Families()
    histogram = families.histogram(name, "Waits", ("model",), EDGES).labels("sums")
    for value in values:
        histogram.observe(np.array([value]))
    return read_scrape(generate_latest(families.registry).decode(), 0.0)


def test_samples_are_summed_over_the_labels_that_are_not_named() -> None:
    found = read_scrape('a_total{model="x",how="y"} 1\na_total{model="x",how="z"} 2\na_total{model="w"} 4\n', 5.0)
    assert (found.total("a_total"), found.total("a_total", model="x"), found.total("b")) == (7.0, 3.0, 0.0)
    assert found.values("a_total", "model") == ["x", "w"]
    assert found.values("a_total", "how", model="x") == ["y", "z"]


def test_what_is_not_known_is_not_counted() -> None:
    assert read_scrape("a NaN\n", 0.0).total("a") == 0.0


def test_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_scrape("<html>no metrics</html>\n", 0.0)


def test_only_what_was_added_counts_and_a_restart_counts_from_zero() -> None:
    before, now = read_scrape("a_total 5\nb_total 9\n", 0.0), read_scrape("a_total 8\nb_total 2\nc_total 1\n", 2.0)
    gone = between(before, now)
    assert [gone.total(f"{name}_total") for name in "abc"] == [3.0, 2.0, 1.0]


def test_a_quantile_is_interpolated_in_its_bucket() -> None:
    found = scrape(*[0.005] * 10)
    assert found.quantile("tiergate_wait_seconds", 0.5, model="sums") == pytest.approx(0.0055)
    assert found.quantile("tiergate_wait_seconds", 0.5, model="other") is None


def test_nothing_is_known_beyond_the_last_edge() -> None:
    assert scrape(0.5, 0.5).quantile("tiergate_wait_seconds", 0.99) == 0.1


@given(st.lists(st.floats(0.0, 0.0999), min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_a_quantile_lies_in_the_bucket_of_the_value_at_its_rank(values: list[float], share: float) -> None:
    found = scrape(*values).quantile("tiergate_wait_seconds", share)
    assert found is not None
    true = sorted(values)[max(0, -int(-share * len(values) // 1) - 1)]
    low, high = max([0.0, *(edge for edge in EDGES if edge < true)]), min(edge for edge in EDGES if edge >= true)
    assert low - 1e-9 <= found <= high + 1e-9
