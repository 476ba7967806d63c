from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from service.domain.drift import Distribution, InputReference
from service.policy.drift.distributions import chi_square_p, compare, compare_inputs, fisher_p, kolmogorov_p
from service.policy.drift.summary import summarise
from variants.summarising import describe_inputs
from variants.summarising import summarise as summarise_in_the_build

EDGES = (-30.0, *np.quantile(np.random.default_rng(0).normal(size=2000), np.linspace(0.1, 0.9, 9)), 30.0)
REFERENCE = Distribution(EDGES, (200,) * 10)


def test_a_window_of_the_same_kind_does_not_differ() -> None:
    found = compare(REFERENCE, np.random.default_rng(1).normal(size=400))
    assert found.psi < 0.1
    assert min(found.psi_p, found.ks_p) > 0.001


@pytest.mark.parametrize(("mean", "spread"), [(0.8, 1.0), (0.0, 3.0)])
def test_a_window_of_another_kind_differs(mean: float, spread: float) -> None:
    found = compare(REFERENCE, np.random.default_rng(1).normal(mean, spread, 400))
    assert found.psi_p < 1e-6
    assert found.ks_p < 1e-3


def test_false_alarms_are_as_rare_as_stated() -> None:
    chance = np.random.default_rng(2)
    hits = [compare(REFERENCE, chance.normal(size=300)).psi_p < 0.01 for _ in range(400)]
    assert np.mean(hits) < 0.04


@given(st.floats(0.5, 60.0), st.integers(3, 20))
def test_chi_square_is_near_the_exact_one(value: float, degrees: int) -> None:
    assert chi_square_p(value, degrees) == pytest.approx(float(stats.chi2.sf(value, degrees)), abs=0.01)


@given(st.floats(0.1, 8.0), st.integers(2, 20), st.integers(60, 500))
def test_fisher_is_near_the_exact_one(value: float, first: int, second: int) -> None:
    assert fisher_p(value, first, second) == pytest.approx(float(stats.f.sf(value, first, second)), abs=0.01)


@given(st.floats(0.0, 4.0))
def test_kolmogorov_is_the_exact_law(scaled: float) -> None:
    assert kolmogorov_p(scaled) == pytest.approx(float(stats.kstwobign.sf(scaled)), abs=1e-6)


def input_reference(rows: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> InputReference:
    found = describe_inputs("image", rows)
    assert found is not None
    return InputReference(found.name, found.rows, found.means, found.whitening, found.distances)


def pictures(rows: int, seed: int, scale: float = 1.0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    base = np.random.default_rng(seed).normal(size=(rows, 1, 12, 12))
    smooth = base + np.roll(base, 1, -1) + np.roll(base, 1, -2)
    return np.asarray(scale * smooth, dtype=np.float32)


def test_inputs_of_the_same_kind_do_not_differ_and_others_do() -> None:
    reference = input_reference(pictures(200, 0))
    same, louder = compare_inputs(reference, pictures(200, 1)), compare_inputs(reference, pictures(200, 2, 1.3))
    assert min(same.t2_p, same.ks_p) > 1e-3
    assert louder.t2_p < 1e-6
    assert louder.ks_p < 1e-3


@pytest.mark.parametrize("shape", [(5, 3), (5, 64), (5, 1, 8, 8), (5, 3, 16, 17), (5, 1)])
def test_the_build_summarises_as_the_gateway_does(shape: tuple[int, ...]) -> None:
    rows = np.random.default_rng(4).normal(size=shape)
    rows.reshape(-1)[0] = np.nan
    assert summarise(rows) == pytest.approx(summarise_in_the_build(rows))
    assert summarise(rows).shape[1] <= 19
    assert np.isfinite(summarise(rows)).all()


def test_blur_shows_in_the_texture_alone() -> None:
    rows = pictures(100, 5)
    blurred = (rows + np.roll(rows, 1, -1)) / 2
    change = np.abs(summarise(blurred) - summarise(rows)).mean(0) / summarise(rows).std(0)
    assert change[-2:].min() > 2 * change[:8].max()
