"""Scenarios: what a load test sends, as a validated YAML file.

Times carry ``_s`` and ``_ms`` as people write them. A rate is either absolute, ``rate_hz``, or a share of the capacity
that the model's manifest predicts, ``load_ratio``: 1.0 is what all lanes together compute if every request is answered
by the most accurate variant, one row at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from loadtests import arrivals, traces
from loadtests.fitted import FITS, draw_stand_in
from loadtests.h2load import LoadError
from loadtests.plan import Criticality, Mix, Protocol, RequestClass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Times = NDArray[np.float64]

FOLDER: Final = Path(__file__).parent / "scenarios"
MOST_REQUESTS: Final = 2_000_000

Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Relative = Annotated[float, Field(ge=0.0, le=1e6)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Rated(_Strict):
    """The mean rate, by exactly one of two ways to say it."""

    rate_hz: Positive | None = None
    load_ratio: Positive | None = None

    @model_validator(mode="after")
    def _has_one_rate(self) -> _Rated:
        if (self.rate_hz is None) == (self.load_ratio is None):
            raise ValueError("give exactly one of rate_hz and load_ratio")
        return self

    def rate(self, capacity_hz: float | None) -> float:
        """Return the rate in requests per second.

        Raises:
            LoadError: It is a share of a capacity that is not known.
        """
        if self.rate_hz is not None:
            return self.rate_hz
        if capacity_hz is None or self.load_ratio is None:
            raise LoadError("the scenario's rate is a share of the model's capacity, which is not known: give --rate")
        return self.load_ratio * capacity_hz


class Constant(_Rated):
    """Equal gaps."""

    kind: Literal["constant"]

    def draw(self, rate_hz: float, duration_s: float, seed: int) -> Times:
        """Return the moments."""
        del seed
        return arrivals.constant(rate_hz, duration_s)


class Poisson(_Rated):
    """Independent exponential gaps."""

    kind: Literal["poisson"]

    def draw(self, rate_hz: float, duration_s: float, seed: int) -> Times:
        """Return the moments."""
        return arrivals.poisson(rate_hz, duration_s, np.random.default_rng(seed))


class Gamma(_Rated):
    """Independent gaps with a coefficient of variation."""

    kind: Literal["gamma"]
    cv: Annotated[float, Field(ge=0.05, le=50.0)]

    def draw(self, rate_hz: float, duration_s: float, seed: int) -> Times:
        """Return the moments."""
        return arrivals.gamma_renewal(rate_hz, self.cv, duration_s, np.random.default_rng(seed))


class Mmpp(_Rated):
    """A rate that jumps between states; ``relative`` rates, of which the mean over time is scaled to the rate."""

    kind: Literal["mmpp"]
    relative: tuple[Relative, ...] = Field(min_length=2, max_length=16)
    stays_s: tuple[Positive, ...] = Field(min_length=2, max_length=16)

    @model_validator(mode="after")
    def _lists_fit(self) -> Mmpp:
        if len(self.relative) != len(self.stays_s) or not any(self.relative):
            raise ValueError("relative and stays_s need the same length, and one relative rate above 0")
        return self

    def draw(self, rate_hz: float, duration_s: float, seed: int) -> Times:
        """Return the moments."""
        mean = sum(r * s for r, s in zip(self.relative, self.stays_s, strict=True)) / sum(self.stays_s)
        rates = [rate_hz * relative / mean for relative in self.relative]
        return arrivals.mmpp(rates, self.stays_s, duration_s, np.random.default_rng(seed))


class Diurnal(_Rated):
    """A day's sine, by default one whole day in the scenario's duration."""

    kind: Literal["diurnal"]
    swing_ratio: Share = 0.8
    period_s: Positive | None = None

    def draw(self, rate_hz: float, duration_s: float, seed: int) -> Times:
        """Return the moments."""
        curve = arrivals.diurnal(rate_hz, self.swing_ratio, self.period_s or duration_s)
        return arrivals.follow(curve, duration_s, np.random.default_rng(seed))


class Step(_Rated):
    """A rate that changes at given parts of the duration; ``rate`` is that of relative 1."""

    kind: Literal["step"]
    starts_ratio: tuple[Share, ...] = Field(min_length=1, max_length=100)
    relative: tuple[Relative, ...] = Field(min_length=1, max_length=100)

    @model_validator(mode="after")
    def _lists_fit(self) -> Step:
        ascends = self.starts_ratio[0] == 0.0 and list(self.starts_ratio) == sorted(self.starts_ratio)
        if len(self.relative) != len(self.starts_ratio) or not ascends:
            raise ValueError("starts_ratio must ascend from 0 and have as many entries as relative")
        return self

    def draw(self, rate_hz: float, duration_s: float, seed: int) -> Times:
        """Return the moments."""
        starts = [share * duration_s for share in self.starts_ratio]
        rates = [rate_hz * relative for relative in self.relative]
        return arrivals.piecewise(starts, rates, duration_s, np.random.default_rng(seed))


class FlashCrowd(_Rated):
    """A crowd that comes at once: the rate is the base; the peak is ``peak_relative`` times that."""

    kind: Literal["flash_crowd"]
    peak_relative: Positive
    at_ratio: Share = 0.3
    climb_s: Positive = 1.0
    hold_s: Positive = 5.0
    decay_s: Positive = 5.0

    def draw(self, rate_hz: float, duration_s: float, seed: int) -> Times:
        """Return the moments."""
        phases = (self.climb_s, self.hold_s, self.decay_s)
        curve = arrivals.flash_crowd(rate_hz, rate_hz * self.peak_relative, self.at_ratio * duration_s, phases)
        return arrivals.follow(curve, duration_s, np.random.default_rng(seed))


class Trace(_Rated):
    """A recorded trace, or its seeded stand-in where no file is given.

    It starts at ``offset_s`` of the trace as recorded, and is repeated where it is too short. ``scaling`` brings it to
    the rate: ``time`` plays as many of its requests as the run has, faster or slower; ``rate`` plays it at its own
    speed and leaves requests out or repeats them.
    """

    kind: Literal["trace"]
    stand_in: Literal["code", "conv"] | None = None
    file: Path | None = None
    column: str | None = None
    scaling: Literal["time", "rate"] = "time"
    offset_s: Annotated[float, Field(ge=0.0)] = 0.0

    @model_validator(mode="after")
    def _has_a_source(self) -> Trace:
        if self.stand_in is None and self.file is None:
            raise ValueError("give file, or stand_in, or both")
        return self

    def draw(self, rate_hz: float, duration_s: float, seed: int) -> Times:
        """Return the moments."""
        if self.file is not None:
            times = traces.read_trace(self.file, column=self.column, seed=seed)
        else:
            fit = FITS[self.stand_in or "conv"]
            times = draw_stand_in(fit, fit.target.duration_s, seed)
        times = times[times >= self.offset_s] - self.offset_s
        if len(times) < 2:  # noqa: PLR2004 - a rate needs two
            raise LoadError(f"the trace has fewer than 2 arrivals after offset_s {self.offset_s:g}")
        if self.scaling == "time":
            return traces.play(times, max(1, round(rate_hz * duration_s)), duration_s)
        window = traces.repeat(times, duration_s)
        return traces.scale_rate(window, rate_hz * duration_s / len(window), seed)


Arrivals = Annotated[
    Constant | Poisson | Gamma | Mmpp | Diurnal | Step | FlashCrowd | Trace, Field(discriminator="kind")
]


class ClassOfRequests(_Strict):
    """One kind of request; a budget is absolute or a multiple of the most accurate variant's predicted time."""

    name: str = Field(min_length=1, max_length=64)
    share: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    budget_ms: Positive | None = None
    budget_ratio: Positive | None = Field(default=None, description="budget over one full run's p95 on one lane")
    hardware: str = Field(default="", pattern=r"^([a-z0-9][a-z0-9._-]{0,63})?$")
    criticality: Criticality = "normal"
    variant: str = Field(default="", pattern=r"^([a-z0-9][a-z0-9._-]{0,63})?$", description="pins")
    names_budget: bool = Field(default=True, description="false: held to its budget without saying it")

    @model_validator(mode="after")
    def _has_one_budget(self) -> ClassOfRequests:
        if (self.budget_ms is None) == (self.budget_ratio is None):
            raise ValueError("give exactly one of budget_ms and budget_ratio")
        return self

    def made(self, full_s: float | None) -> RequestClass:
        """Return the class with its budget in seconds; see ``Scenario.make_mix``."""
        said = (self.hardware, self.criticality, self.variant)
        return RequestClass(self.name, _budget_s(self, full_s), *said, names_budget=self.names_budget)


class Event(_Strict):
    """Something done to the gateway while the load runs, at a part of the duration."""

    at_ratio: Share
    do: Literal["unload", "load", "break_variant"] = Field(
        description="break_variant loads the model anew without the file of its most accurate variant"
    )


class Scenario(_Strict):
    """A whole load test, less where it is sent and what it carries."""

    name: str = Field(min_length=1, max_length=64)
    description: str = ""
    model: str = "digits"
    protocol: Protocol = "http-binary"
    duration_s: Annotated[float, Field(gt=0.0, le=86_400.0)] = 30.0
    warmup_s: Annotated[float, Field(ge=0.0, le=600.0)] = 2.0
    timeout_s: Annotated[float, Field(gt=0.0, le=3600.0)] = 5.0
    seed: int = Field(default=0, ge=0, lt=2**32)
    arrivals: Arrivals
    mix: tuple[ClassOfRequests, ...] = Field(min_length=1, max_length=255)
    events: tuple[Event, ...] = Field(default=(), max_length=100)

    @model_validator(mode="after")
    def _names_differ(self) -> Scenario:
        names = [item.name for item in self.mix]
        if len(set(names)) < len(names):
            raise ValueError("the kinds of the mix need names that differ")
        return self

    def make_mix(self, full_s: float | None) -> Mix:
        """Return the mix; ``full_s`` is the time that budgets given as ratios refer to.

        Raises:
            LoadError: A budget is a multiple of a time that is not known.
        """
        return Mix(
            tuple(item.made(full_s) for item in self.mix),
            tuple(item.share for item in self.mix),
        )


def read_scenario(source: str) -> Scenario:
    """Return a bundled scenario by its name, or one from a YAML file by its path.

    Raises:
        LoadError: There is none, or it is not valid; the message names the field.
    """
    path = FOLDER / f"{source}.yaml" if source in bundled() else Path(source)
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Scenario.model_validate(content)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = explain(error) if isinstance(error, ValidationError) else str(error)
        raise LoadError(f"scenario '{source}' cannot be used: {reason}; bundled are {', '.join(bundled())}") from None


def bundled() -> list[str]:
    """Return the names of the bundled scenarios."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def _budget_s(item: ClassOfRequests, full_s: float | None) -> float:
    if item.budget_ms is not None:
        return item.budget_ms / 1e3
    if full_s is None or item.budget_ratio is None:
        raise LoadError(f"class '{item.name}' has a budget relative to the model's profile, which is not known")
    return item.budget_ratio * full_s


def explain(error: ValidationError) -> str:
    """Return what is wrong with a scenario, each fault after the name of its field."""
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'scenario'}: {item['msg']}" for item in error.errors()[:5])
