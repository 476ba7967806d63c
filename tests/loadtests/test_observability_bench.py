"""The arithmetic of the benchmark of observing: orders of rounds, and ratios to the first kind."""

from __future__ import annotations

import pytest

from loadtests.observability_bench import Sample, Samples, order_of, summarise

SPEEDS = (1.0, 0.5, 2.0, 0.8, 1.0, 1.3, 0.7, 1.0)
"""How fast the machine is in each round."""


def turns(rate_hz: float, cpu_s: float) -> list[Sample]:
    return [Sample(rate_hz * speed, cpu_s / speed) for speed in SPEEDS]


def test_every_place_of_a_round_is_everybodys_once_and_rotations_alternate() -> None:
    orders = [order_of(number, 3) for number in range(6)]
    assert orders[:3] == [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
    assert orders[3:] == [order[::-1] for order in orders[:3]]


def test_a_kind_counts_by_the_mean_of_its_processes_beside_the_first_kind_of_the_same_round() -> None:
    samples: Samples = {
        ("nothing", "gRPC"): [turns(1000.0, 1e-4), turns(1100.0, 1e-4)],
        ("metrics", "gRPC"): [turns(1008.0, 1.2e-4), turns(1008.0, 1e-4)],
    }
    first, second = summarise(samples)
    assert (first["lost"]["median"], first["apart"]) == (0.0, pytest.approx(0.1))
    for edge in ("low", "median", "high"):  # no round differs, however fast the machine was
        assert second["lost"][edge] == pytest.approx(0.04)
        assert second["cpu_added"][edge] == pytest.approx(0.1)
    assert (second["processes"], second["rate_hz"], second["apart"]) == (2, pytest.approx(1008.0), pytest.approx(0.0))
