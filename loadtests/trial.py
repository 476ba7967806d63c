"""A load test from end to end: a scenario, a gateway, labelled rows; out comes a document for every report."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import ValidationError

from loadtests import gateway, inputs, outcome
from loadtests.document import Document, Requests
from loadtests.events import Troublemaker, copy_model, newest_version
from loadtests.h2load import LoadError
from loadtests.plan import Address, Job, Schedule, draw_schedule
from loadtests.runner import Listener, run_job
from loadtests.scenario import MOST_REQUESTS, explain
from variants.machine import describe_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from loadtests.plan import Target
    from loadtests.scenario import Scenario

_WARMUP_SEED: Final = 1_000_003


@dataclass(frozen=True, slots=True)
class Site:
    """Where a load test happens: the gateway's address, and the repository it serves where that is known."""

    address: Address
    repository: Path | None
    generator_core: int | None


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the model's profile predicts of its most accurate variant: rows per second on all lanes, one row's p95."""

    rate_hz: float
    full_s: float
    variant: str
    lanes: int


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may say beside the scenario."""

    rate_hz: float | None = None
    inputs: Path | None = None
    connections: int = 16


@contextlib.contextmanager
def own_gateway(repository: Path, scenario: Scenario, core: int | None, *, share_cores: bool) -> Iterator[Site]:
    """Start a gateway for the scenario, on other cores than the generator's unless told otherwise, and end it after.

    Raises:
        LoadError: It did not start.
    """
    generator_core, others = gateway.split_cores(core)
    with tempfile.TemporaryDirectory() as folder:
        if any(event.do == "break_variant" for event in scenario.events):
            repository = copy_model(repository, scenario.model, Path(folder))
        with gateway.running_gateway(repository, None if share_cores else others) as address:
            yield Site(address, repository, generator_core)


def run_trial(
    scenario: Scenario, site: Site, options: Options, on_progress: Callable[[float], None] | None = None
) -> Document:
    """Run a scenario and return everything about it.

    Raises:
        LoadError: It cannot be run as asked.
    """
    target = gateway.find_target(site.address, scenario.model, scenario.protocol)
    capacity = predict_capacity(site.address, scenario.model)
    rows = find_inputs(target, site.repository, options.inputs, scenario.seed)
    mix = scenario.make_mix(None if capacity is None else capacity.full_s)
    rate_hz = options.rate_hz or scenario.arrivals.rate(None if capacity is None else capacity.rate_hz)
    schedule = make_schedule(scenario, rate_hz, mix_rows=len(rows.rows))
    job = Job(target, rows.rows, mix.classes, schedule, scenario.timeout_s, site.generator_core, options.connections)
    with Troublemaker(scenario, site.address, site.repository) as trouble:
        run = run_job(job, Listener(trouble.start, on_progress or (lambda _: None)))
    summary = outcome.summarise(run, mix.classes, rows.labels)
    if trouble.faults:
        summary = summary.model_copy(update={"faults": (*summary.faults, *trouble.faults)})
    return Document(
        scenario=scenario.model_dump(mode="json"),
        rate_hz=rate_hz,
        capacity_hz=None if capacity is None else capacity.rate_hz,
        lanes=None if capacity is None else capacity.lanes,
        inputs=rows.source,
        machine=describe_machine().model_dump(mode="json"),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        summary=summary,
        requests=requests_of(outcome.judge(run.recording, mix.classes, rows.labels), run.recording.variants),
    )


def make_schedule(scenario: Scenario, rate_hz: float, mix_rows: int) -> Schedule:
    """Return the schedule: the warm-up at half the scenario's mean rate, then its arrivals.

    Raises:
        LoadError: It has no requests, or more than are kept in memory.
    """
    if rate_hz * scenario.duration_s > MOST_REQUESTS:
        raise LoadError(
            f"{rate_hz:g} requests/s for {scenario.duration_s:g} s are over {MOST_REQUESTS} requests; run it in parts"
        )
    times = scenario.arrivals.draw(rate_hz, scenario.duration_s, scenario.seed)
    if len(times) > MOST_REQUESTS:
        raise LoadError(f"scenario '{scenario.name}' has {len(times):,} requests, over {MOST_REQUESTS}; run parts")
    if not len(times):
        raise LoadError(f"scenario '{scenario.name}' has no arrivals in {scenario.duration_s:g} s at {rate_hz:g} Hz")
    rng = np.random.default_rng([scenario.seed, _WARMUP_SEED])
    warmups = np.sort(rng.uniform(0.0, scenario.warmup_s, int(scenario.warmup_s * rate_hz / 2)))
    mix = scenario.make_mix(1.0)  # its budgets do not matter here
    return draw_schedule(
        np.concatenate([warmups, times + scenario.warmup_s]), mix, mix_rows, scenario.seed, warmups=len(warmups)
    )


def predict_capacity(address: Address, model: str) -> Capacity | None:
    """Return what the gateway's profile of the most accurate variant predicts; ``None`` for other servers."""
    try:
        described = gateway.get_json(address.http, f"/v2/models/{model}/variants")["variants"]
        best = max(described, key=lambda item: (item["tier"] == "full", item["accuracy"]))
        cell = next(cell for cell in best["profile"] if cell["batch_size"] == 1)
        seen = gateway.scrape(address)
        lanes = len(seen.lane_busy) if seen is not None and seen.lane_busy else 1
        return Capacity(lanes / (cell["p50_ms"] / 1e3), cell["p95_ms"] / 1e3, best["name"], lanes)
    except (LoadError, LookupError, TypeError, ValueError, StopIteration):
        return None


def find_inputs(target: Target, repository: Path | None, path: Path | None, seed: int) -> inputs.Inputs:
    """Return the rows to send: those of a file, or those that the model was tested on, or random ones.

    Raises:
        LoadError: The file or the recipe does not fit the model.
    """
    if path is not None:
        found = inputs.read_inputs(path)
    elif repository is not None:
        found = inputs.inputs_of_recipe(newest_version(repository, target.model)[1])
    else:
        found = inputs.random_inputs(target, seed)
    return inputs.check_inputs(found, target)


def read_document(path: Path) -> Document:
    """Read what ``tiergate load --save`` wrote.

    Raises:
        LoadError: It cannot be read.
    """
    try:
        return Document.model_validate_json(path.read_bytes())
    except OSError as error:
        raise LoadError(f"{path} is no saved load test: {error.strerror or error}") from None
    except ValidationError as error:
        raise LoadError(f"{path} is no saved load test: {explain(error)}") from None


def requests_of(judged: outcome.Judged, variants: list[str]) -> Requests:
    """Return the measured requests as a document keeps them: times to the microsecond."""
    columns = judged.columns

    def rounded(values: NDArray[np.float64]) -> list[Any]:
        return [None if np.isnan(value) else round(value, 6) for value in values.tolist()]

    return Requests(
        scheduled_s=rounded(columns["scheduled_s"]),
        latency_s=rounded(columns["latency_s"]),
        kind=columns["classes"].tolist(),
        row=columns["rows"].tolist(),
        status=columns["status"].tolist(),
        variant=[variants[place] if place >= 0 else "" for place in columns["variant"].tolist()],
        on_time=judged.is_on_time.tolist(),
        correct=None if judged.is_correct is None else judged.is_correct.tolist(),
    )
