"""The HorizontalPodAutoscaler, as Kubernetes documents it.

The sections "Algorithm details" and "Configurable scaling behavior"; KEDA hands its triggers to the same controller.

Every sync, each signal proposes ceil(replicas * value / target), or the same number where value / target is within the
tolerance of 1; the largest proposal counts. Stabilisation takes, of the proposals of a window, the smallest on the way
up and the largest on the way down. Then policies bound how many replicas may come or go within a period.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

SYNC_S: Final = 15.0
"""How often the controller looks (``--horizontal-pod-autoscaler-sync-period``)."""
_TOLERANCE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Behavior:
    """Limits of one direction: ``percent`` of the replicas, or ``pods``, whichever is more, in ``period_s``."""

    stabilization_s: float
    percent: float
    period_s: float
    pods: int = 0

    def most(self, replicas: int) -> int:
        """Return how many replicas may come to so many, or go from them, in a period."""
        return max(math.ceil(replicas * self.percent / 100.0), self.pods)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the chart's values say of autoscaling; ``targets`` by signal."""

    least: int
    most: int
    targets: Mapping[str, float]
    up: Behavior
    down: Behavior


@dataclass(slots=True)
class Autoscaler:
    """The controller of one deployment; call ``decide`` every ``SYNC_S`` seconds."""

    rules: Rules
    replicas: int
    _proposals: list[tuple[float, int]] = field(default_factory=list)
    _changes: list[tuple[float, int]] = field(default_factory=list)

    def decide(self, now_s: float, signals: Mapping[str, float]) -> int:
        """Return the replicas that the deployment is to have from now on, given each signal's value."""
        rules = self.rules
        wanted = max(self._proposal(signals[name], target) for name, target in rules.targets.items())
        wanted = min(max(wanted, rules.least), rules.most)
        self._proposals = [item for item in self._proposals if item[0] > now_s - self._memory_s()]
        self._proposals.append((now_s, wanted))
        steady = self._stabilized(now_s)
        allowed = min(max(steady, self._floor(now_s)), self._ceiling(now_s))
        if allowed != self.replicas:
            self._changes.append((now_s, allowed - self.replicas))
            self.replicas = allowed
        return allowed

    def _proposal(self, value: float, target: float) -> int:
        ratio = value / target
        return self.replicas if abs(ratio - 1.0) <= _TOLERANCE else math.ceil(self.replicas * ratio)

    def _memory_s(self) -> float:
        return max(self.rules.up.stabilization_s, self.rules.down.stabilization_s, SYNC_S)

    def _stabilized(self, now_s: float) -> int:
        up = min(self._since(now_s - self.rules.up.stabilization_s))
        down = max(self._since(now_s - self.rules.down.stabilization_s))
        return max(up, min(self.replicas, down))

    def _since(self, moment_s: float) -> list[int]:
        return [count for when_s, count in self._proposals if when_s >= moment_s]

    def _ceiling(self, now_s: float) -> int:
        start = self._replicas_before(now_s - self.rules.up.period_s)
        return max(self.replicas, start + self.rules.up.most(start))

    def _floor(self, now_s: float) -> int:
        start = self._replicas_before(now_s - self.rules.down.period_s)
        return min(self.replicas, start - self.rules.down.most(start))

    def _replicas_before(self, moment_s: float) -> int:
        return self.replicas - sum(change for when_s, change in self._changes if when_s > moment_s)


def read_rules(autoscaling: Mapping[str, Any], *, least: int, most: int) -> Rules:
    """Return the rules in the chart's values under ``autoscaling``, for so many replicas.

    Signals that are off are left out.

    Raises:
        ValueError: No signal is on.
    """
    targets = {name: float(item["target"]) for name, item in autoscaling["signals"].items() if item["enabled"]}
    if not targets:
        raise ValueError("autoscaling has no signal that is on")
    up, down = autoscaling["scaleUp"], autoscaling["scaleDown"]
    return Rules(
        least=least,
        most=most,
        targets=targets,
        up=Behavior(up["stabilizationSeconds"], up["percent"], up["periodSeconds"], up["pods"]),
        down=Behavior(down["stabilizationSeconds"], down["percent"], down["periodSeconds"]),
    )
