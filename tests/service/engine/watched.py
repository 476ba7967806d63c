"""A loaded model with the watch over it, for tests that say themselves what was seen."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from service.domain.policy_file import DriftRules, ModelPolicy, PolicyFile
from service.engine.drift.shadows import Compared, Shadows
from service.engine.drift.taps import Sample
from service.engine.drift.watching import ModelWatch
from service.engine.registry import Registry
from service.engine.repository import Repository
from tests.drifting import write_winds
from tests.service.engine.conftest import Events

if TYPE_CHECKING:
    from pathlib import Path

    from service.domain.verdicts import Happening
    from service.engine.loaded import LoadedModel

RIGHT = (np.array([[5.0, 0.0, 0.0, 0.0]], dtype=np.float32),)
OTHER = (np.array([[0.0, 5.0, 0.0, 0.0]], dtype=np.float32),)


class Watched:
    """A loaded model and the watch over it."""

    def __init__(self, root: Path, rules: DriftRules | None = None) -> None:
        write_winds(root)
        policy = PolicyFile(default=ModelPolicy(drift=rules or DriftRules()))
        self.registry = Registry(Repository(root), policy, Events())
        self.registry.load_all()
        self.shadows = Shadows(lambda: True, time.perf_counter)
        self.happened: list[tuple[str, Happening]] = []
        self.wall_s = 1000.0
        self.watch = self.begin()

    @property
    def model(self) -> LoadedModel:
        return self.registry.get("winds")

    def begin(self) -> ModelWatch:
        reference = self.model.reference
        assert reference is not None
        return ModelWatch(
            self.model,
            reference,
            self.shadows,
            lambda: self.wall_s,
            lambda _, name, found: self.happened.append((name, found)),
        )

    def compare(self, times: int, *, agrees: bool, variant: str = "quantized", taken_s: float | None = None) -> None:
        """Compare a variant with full so often; its witnesses say what full says."""
        for _ in range(times):
            now_s = time.perf_counter() if taken_s is None else taken_s
            sample = Sample(self.model, {}, variant, RIGHT, (variant,), now_s)
            heard = dict.fromkeys(self.watch.panel.witnesses_of(variant), RIGHT)
            self.watch.compared(Compared(sample, RIGHT, {variant: RIGHT if agrees else OTHER}, heard))

    def contradict(self, times: int, variant: str = "quantized", taken_s: float | None = None) -> None:
        """Compare a variant with full so often, where full alone says something else than everybody."""
        for _ in range(times):
            now_s = time.perf_counter() if taken_s is None else taken_s
            sample = Sample(self.model, {}, variant, RIGHT, (variant,), now_s)
            heard = dict.fromkeys(self.watch.panel.witnesses_of(variant), RIGHT)
            self.watch.compared(Compared(sample, OTHER, {variant: RIGHT}, heard))

    def follow(self, rules: DriftRules) -> None:
        self.registry.apply_policy(PolicyFile(default=ModelPolicy(drift=rules)))
        self.watch.follow_policy()

    @property
    def states(self) -> list[str]:
        return [found.after for _, found in self.happened]
