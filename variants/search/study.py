"""The study: what Optuna knows of the candidates, on disk, so that an interrupted search goes on.

Suggestions come from the tree-structured Parzen estimator for several objectives (Ozaki et al. 2022, "Multiobjective
Tree-Structured Parzen Estimator"), which needs tens of trials where NSGA-II needs hundreds. Every suggestion has a
seed of its own, made of the search's seed and the number of suggestions before it, so that a search that was
interrupted asks for the same networks as one that was not. One fit gives two candidates, one for each precision: the
one that was not asked for is told as a trial of its own.

The journal is a text file of Optuna's. Of a trial that was interrupted nothing counts.
"""

from __future__ import annotations

import json
import warnings
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from variants.errors import MissingPart
from variants.search.choosing import Candidate
from variants.search.space import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from variants.search.space import Choice, Space

DIRECTIONS: Final = ("maximize", "minimize", "minimize", "minimize")
RANDOM: Final = 16
"""Suggestions before the estimator takes over."""
SEEDS: Final = 100_003
NUMPY_SEEDS: Final = 2**32
PRECISION: Final = "precision"
CANDIDATE, CPU, ASKED = "candidate", "cpu_s", "asked"


class Study:
    """Asks for networks and hears how they scored; all in the file ``path``."""

    def __init__(self, path: Path, space: Space, seed: int) -> None:
        self._optuna = _import_optuna()
        self._space, self._seed = space, seed
        path.parent.mkdir(parents=True, exist_ok=True)
        with _quiet():
            backend = self._optuna.storages.journal.JournalFileBackend(str(path))
            storage = self._optuna.storages.JournalStorage(backend)
            self._study = self._optuna.create_study(
                storage=storage, study_name="search", directions=DIRECTIONS, load_if_exists=True
            )
        self._drop_unfinished()

    @property
    def candidates(self) -> list[Candidate]:
        """All candidates so far, in the order told."""
        return [Candidate(**json.loads(trial.user_attrs[CANDIDATE])) for trial in self._complete()]

    @property
    def asked(self) -> int:
        """How many networks were asked for and scored."""
        return sum(trial.user_attrs[ASKED] for trial in self._complete())

    @property
    def cpu_s(self) -> float:
        """CPU time that scoring took, in all attempts."""
        return float(sum(trial.user_attrs[CPU] for trial in self._complete()))

    def ask(self) -> tuple[Any, Choice]:
        """Return a trial, which knows the precision asked for, and its network; the first is full itself."""
        done = self.asked
        if done == 0:
            self._study.enqueue_trial({**dict.fromkeys(self._space.dimensions, 0), PRECISION: PRECISIONS[0]})
        with _quiet():
            self._study.sampler = self._optuna.samplers.TPESampler(
                seed=(self._seed * SEEDS + done) % NUMPY_SEEDS, n_startup_trials=RANDOM, multivariate=True
            )
            trial = self._study.ask(self._distributions())
        choice = {name: int(trial.params[name]) for name in self._space.dimensions}
        return trial, choice

    def tell(self, trial: Any, candidates: Sequence[Candidate], cpu_s: float) -> None:  # noqa: ANN401 - Optuna's own type
        """Hear how a network scored in each precision."""
        asked = trial.params[PRECISION]
        for one in sorted(candidates, key=lambda one: one.precision == asked):  # the one asked for is told last
            told = {CANDIDATE: json.dumps(asdict(one))}
            if one.precision == asked:
                for key, value in {**told, CPU: cpu_s, ASKED: True}.items():
                    trial.set_user_attr(key, value)
                self._study.tell(trial, one.objectives)
            elif not self._knows(one):
                self._study.add_trial(
                    self._optuna.trial.create_trial(
                        params={**one.choice, PRECISION: one.precision},
                        distributions=self._distributions(),
                        values=one.objectives,
                        user_attrs={**told, CPU: 0.0, ASKED: False},
                    )
                )

    def recall(self, choice: Choice) -> list[Candidate]:
        """Return the candidates of a network that was scored before, none otherwise."""
        by_precision = {one.precision: one for one in self.candidates if one.choice == choice}
        return [by_precision[precision] for precision in PRECISIONS if len(by_precision) == len(PRECISIONS)]

    def _knows(self, candidate: Candidate) -> bool:
        return any(one.choice == candidate.choice and one.precision == candidate.precision for one in self.candidates)

    def _complete(self) -> list[Any]:
        return [trial for trial in self._study.get_trials(deepcopy=False) if trial.values is not None]

    def _drop_unfinished(self) -> None:
        states = self._optuna.trial.TrialState
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state == states.RUNNING:
                self._study.tell(trial.number, state=states.FAIL)

    def _distributions(self) -> dict[str, Any]:
        """Return the space as Optuna has it."""
        kinds = self._optuna.distributions
        whole = {name: kinds.IntDistribution(0, most) for name, most in self._space.dimensions.items()}
        return {**whole, PRECISION: kinds.CategoricalDistribution(PRECISIONS)}


def _import_optuna() -> Any:  # noqa: ANN401 - an optional package
    try:
        import optuna  # noqa: PLC0415 - optional: only a search needs it
    except ImportError:
        raise MissingPart("a search needs Optuna; get it with: pip install 'tiergate[build]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the remarks on options that Optuna calls experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
