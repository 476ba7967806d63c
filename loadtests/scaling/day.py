"""A day under an autoscaler, by seconds: rates, signals as late as they come, replicas that take time to start."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from loadtests.scaling.autoscaler import SYNC_S, Autoscaler

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from loadtests.scaling.autoscaler import Rules
    from loadtests.scaling.response import Response

DAY_S: Final = 86_400
_NOISE_S: Final = 300
_NOISE: Final = 0.1
_SHARPNESS: Final = 1.5
_CROWDS: Final = 6
_PER_REQUEST: Final = frozenset({"budgetMissedRatio", "accuracyGivenUp"})
"""Shares of requests; the other signals are means over time."""


@dataclass(frozen=True, slots=True)
class Delays:
    """How late things are, in seconds: a new replica serves after ``start_s``, signals are means over ``window_s``."""

    start_s: float = 60.0
    window_s: float = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Day:
    """What came of it: rate, replicas paid for and attainment by second, and the figures of the whole."""

    rate_hz: NDArray[np.float64]
    replicas: NDArray[np.int64]
    attainment_by_s: NDArray[np.float64]
    attainment: float
    accuracy: float
    """Effective: an answer counts its variant's expected accuracy if in time, else 0."""

    @property
    def replica_hours(self) -> float:
        """Replica-hours that were paid for."""
        return float(self.replicas.sum()) / 3600.0


def diurnal(peak_hz: float, seed: int = 0, length_s: int = DAY_S) -> NDArray[np.float64]:
    """Return a day's rates by second: one hump from a fiftieth of the peak, with five-minute noise of 10 %."""
    rng = np.random.default_rng([seed, 9])
    place = np.arange(length_s) / length_s
    hump = ((1.0 - np.cos(2.0 * np.pi * place)) / 2.0) ** _SHARPNESS
    steps = np.exp(rng.normal(0.0, _NOISE, length_s // _NOISE_S + 2))
    noise = np.interp(np.arange(length_s) / _NOISE_S, np.arange(len(steps)), steps)
    shape = (0.02 + 0.98 * hump) * noise
    return np.asarray(peak_hz * shape / shape.max())


def flash_crowds(peak_hz: float, seed: int = 0, length_s: int = DAY_S) -> NDArray[np.float64]:
    """Return a calm day with crowds: from a twentieth of the peak up to it within 20 s, for some 20 minutes each."""
    rng = np.random.default_rng([seed, 10])
    rates = np.full(length_s, peak_hz / 20.0)
    for number in range(_CROWDS):
        began = (number + 0.2 + 0.6 * rng.random()) * length_s / _CROWDS
        age_s = np.arange(length_s) - began
        height = peak_hz * (0.3 + 0.7 * rng.random()) if number else peak_hz
        climb = np.clip(age_s / 20.0, 0.0, 1.0)
        fade = np.exp(-np.maximum(age_s - 600.0, 0.0) / 300.0)
        rates = np.maximum(rates, height * climb * fade)
    return rates


def live(rate_hz: NDArray[np.float64], response: Response, rules: Rules, delays: Delays, first: int) -> Day:
    """Return the day of replicas that respond so, under these rules; it begins with ``first`` of them."""
    serving = min(max(first, rules.least), rules.most)
    scaler = Autoscaler(rules, serving)
    starting: list[tuple[float, int]] = []
    length = len(rate_hz)
    paid, served = np.zeros(length, np.int64), np.zeros(length, np.int64)
    window, sync = max(1, round(delays.window_s)), round(SYNC_S)
    for began in range(0, length, sync):
        if began:
            seen = slice(max(0, began - window), began)
            before = scaler.replicas
            change = (
                scaler.decide(float(began), _signals(response, rules.targets, rate_hz[seen], served[seen])) - before
            )
            if change > 0:
                starting.append((began + delays.start_s, change))
            else:
                serving, starting = _fewer(serving, starting, -change)
        seconds = np.arange(began, min(began + sync, length))
        served[seconds] = serving + sum(count * (seconds >= ready_s) for ready_s, count in starting)
        paid[seconds] = serving + sum(count for _, count in starting)
        serving += sum(count for ready_s, count in starting if ready_s < began + sync)
        starting = [item for item in starting if item[0] >= began + sync]
    by_second = response.at("attainment", rate_hz / served)
    accuracy = response.at("accuracy", rate_hz / served)
    total = rate_hz.sum()
    return Day(
        rate_hz, paid, by_second, float((by_second * rate_hz).sum() / total), float((accuracy * rate_hz).sum() / total)
    )


def _signals(
    response: Response, names: Iterable[str], rate_hz: NDArray[np.float64], served: NDArray[np.int64]
) -> dict[str, float]:
    """Return the means of a window: by requests where a signal is a share of them, else by time."""
    per_replica, total = rate_hz / served, rate_hz.sum()
    found = {}
    for name in names:
        values = response.at(name, per_replica)
        found[name] = float(values @ rate_hz / total if name in _PER_REQUEST else values.mean())
    return found


def _fewer(serving: int, starting: list[tuple[float, int]], count: int) -> tuple[int, list[tuple[float, int]]]:
    """Take replicas away, those first that do not serve yet, as Kubernetes does."""
    left = []
    for ready_s, pods in reversed(starting):
        gone = min(pods, count)
        count -= gone
        if pods > gone:
            left.append((ready_s, pods - gone))
    return max(1, serving - count), left[::-1]


def grid(full_hz: float, small_hz: float, points: int = 36) -> NDArray[np.float64]:
    """Return rates from idle to beyond what the smallest variant can carry; denser where the full one saturates."""
    low = np.linspace(0.05 * full_hz, 1.6 * full_hz, points // 2)
    high = np.geomspace(1.7 * full_hz, 1.5 * max(small_hz, 2.0 * full_hz), points - points // 2)
    return np.concatenate([low, high])


def replicas_for(rate_hz: float, capacity_hz: float, busy_ratio: float) -> int:
    """Return the replicas that keep lanes this busy at a rate."""
    return max(1, math.ceil(rate_hz / (capacity_hz * busy_ratio)))
