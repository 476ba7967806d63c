"""What the benchmark is run on: a built model, labelled rows, traces, loads, and where intermediate files lie."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import yaml
from pydantic import ValidationError

from loadtests.fitted import FITS, draw_stand_in
from loadtests.h2load import LoadError
from loadtests.overhead import find_model
from loadtests.simulator.fleet import Fleet, Machine
from loadtests.simulator.ladder import AnswerSheet, Ladder, read_answer_sheet, read_ladder
from loadtests.traces import play, read_trace
from service.domain.policy_file import ModelPolicy, PolicyFile
from service.policy.costs import Plan

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from service.domain.variants import Profile
    from variants.manifest import ModelManifest

    Times = NDArray[np.float64]

LOADS: Final = (0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
REAL_LOADS: Final = (0.5, 1.0, 2.0, 3.0, 5.0)
_BUDGET_RATIO: Final = 10.0 / 3.0
_STAND_IN_S: Final = 1750.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a short real run has shown: real profiles by variant, and the machine around them."""

    machine: Machine = field(default_factory=lambda: Machine(is_learning=True))
    measured: Mapping[str, Profile] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Setting:
    """One benchmark. ``policies`` are tuned policy files by load; the one under ``None`` serves every other load.

    ``requests`` is how many of a trace's first arrivals a simulation plays, ``real_s`` how long one run on the real
    gateway takes, ``rounds`` how often it is made. Load 1 is what all lanes compute if every request is answered by the
    most accurate variant.
    ``variants`` narrows the ladder to these, for every policy; empty means all.
    """

    repository: Path
    model: str
    work: Path
    inputs: Path | None = None
    traces: tuple[Path, ...] = ()
    policies: Mapping[float | None, Path] = field(default_factory=dict)
    variants: tuple[str, ...] = ()
    budget_s: float | None = None
    loads: tuple[float, ...] = LOADS
    real_loads: tuple[float, ...] = REAL_LOADS
    lanes: int = 2
    requests: int = 4000
    real_s: float = 6.0
    rounds: int = 1
    timeout_s: float = 5.0
    seed: int = 0
    processes: int = 2
    calibration: Calibration = field(default_factory=Calibration)

    @property
    def sheet(self) -> Path:
        """Where the answer sheet lies."""
        return self.work / f"{self.model}-answers.npz"

    def manifest(self) -> tuple[Path, ModelManifest]:
        """Return the model's newest version.

        Raises:
            LoadError: It is not there.
        """
        return find_model(self.repository, self.model)

    def answers(self) -> AnswerSheet | None:
        """Return the answer sheet, ``None`` before it was asked for."""
        return read_answer_sheet(self.sheet) if self.sheet.exists() else None

    def ladder(self, policy: ModelPolicy | None = None) -> Ladder:
        """Return the model's ladder under a policy, with its cascades where the policy uses them.

        Raises:
            LoadError: A variant that the policy or the setting names is not there.
        """
        folder, manifest = self.manifest()
        policy, answers = self.narrowed(policy or ModelPolicy()), self.answers()
        found = read_ladder(folder, policy, answers)
        missing = [name for name in policy.variants if name not in found.names]
        if missing:
            has = ", ".join(item.name for item in manifest.published)
            raise LoadError(f"model '{self.model}' has {has}, not {', '.join(missing)}")
        plans = plans_of(manifest, found.names) if answers is not None and policy.cascades else ()
        return replace(found, plans=plans, measured=self.calibration.measured)

    def narrowed(self, policy: ModelPolicy) -> ModelPolicy:
        """Return a policy that keeps to the variants that take part; one that names its own keeps those."""
        return policy if policy.variants or not self.variants else policy.model_copy(update={"variants": self.variants})

    def fleet(self, policy: ModelPolicy | None = None, *, lanes: int | None = None) -> Fleet:
        """Return one gateway with the model."""
        return Fleet((self.ladder(policy),), lanes=lanes or self.lanes, machine=self.calibration.machine)

    def budget(self) -> float:
        """Return the budget of every request, in seconds: as asked for, or 10/3 of the full variant's median."""
        if self.budget_s is not None:
            return self.budget_s
        ladder = self.ladder()
        return _BUDGET_RATIO * ladder.real(ladder.variants[0]).at(1).p50_s

    def tuned(self, load: float) -> ModelPolicy | None:
        """Return the tuned policy for a load, ``None`` where no file was given."""
        path = self.policies.get(load, self.policies.get(None))
        return None if path is None else read_model_policy(path, self.model)

    def arrivals(self) -> dict[str, Times]:
        """Return the traces by name, from 0: the files given, or the fitted stand-ins."""
        if self.traces:
            return {path.stem: read_trace(path) for path in self.traces}
        return {f"{name} stand-in": draw_stand_in(fit, _STAND_IN_S, self.seed) for name, fit in FITS.items()}


def at_rate(times_s: Times, count: int, rate_hz: float) -> Times:
    """Return the first ``count`` arrivals of a trace, played at a mean rate; a trace that is too short is repeated."""
    return play(times_s, count, count / rate_hz)


def full_rate_hz(fleet: Fleet) -> float:
    """Return how many requests per second all lanes compute if the most accurate variant answers each by itself."""
    ladder = fleet.models[0]
    return fleet.gateways * fleet.lanes / (ladder.real(ladder.variants[0]).at(1).p50_s * fleet.machine.ratio)


def plans_of(manifest: ModelManifest, names: tuple[str, ...]) -> tuple[Plan, ...]:
    """Return the manifest's cascades among these variants, as scheduling knows them."""
    return tuple(
        Plan(
            f"{item.variant}+{item.escalate_to}@{item.escalated_ratio:.3f}",
            item.variant,
            item.escalate_to,
            item.margin,
            item.escalated_ratio,
            item.accuracy,
        )
        for item in manifest.cascades
        if {item.variant, item.escalate_to} <= set(names)
    )


def read_model_policy(path: Path, model: str) -> ModelPolicy:
    """Return a model's policy from a policy file.

    Raises:
        LoadError: The file cannot be read or is not valid.
    """
    try:
        return PolicyFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))).of(model)
    except (OSError, ValidationError, yaml.YAMLError) as error:
        raise LoadError(f"policy file {path} cannot be used: {error}") from None


def write_model_policy(path: Path, model: str, policy: ModelPolicy) -> Path:
    """Write a policy file that holds this model's policy alone; return its path."""
    document = {"schema_version": 1, "models": {model: policy.model_dump(mode="json", exclude_defaults=True)}}
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path
