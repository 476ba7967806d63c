"""Agreement of classifiers: the same class or not, and how far the probabilities lie apart.

With p and q the class probabilities of full and of the variant on a row, a and b their largest classes,

    loss     = 0 if a = b else 1
    distance = 1/2 sum |p - q|                          (total variation)
    log-odds = ln(p_a / (1 - p_a)), from logits without rounding: z_a - ln sum of the others' e^z
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from service.policy.drift.pairs import Pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from service.domain.drift import OutputForm

    Reals = NDArray[np.float64]

MOST_LOG_ODDS: Final = 30.0
_MOST_LOGIT: Final = 1e6
_LEAST: Final = 1e-300


@dataclass(frozen=True, slots=True)
class Classification:
    """Compares the first output, (rows, classes), given as ``form``."""

    form: OutputForm = "logits"

    def compare(self, full: Sequence[NDArray[Any]], variant: Sequence[NDArray[Any]]) -> tuple[Pair, ...]:
        """Return one pair for each row."""
        wanted, given = log_scores(full[0], self.form), log_scores(variant[0], self.form)
        first, second = wanted.argmax(1), given.argmax(1)  # (rows,)
        p, q = _normalised(wanted), _normalised(given)
        columns = (
            ((first != second) | _is_broken(variant[0])).astype(np.float64),
            np.minimum(0.5 * np.abs(p - q).sum(1), 1.0),
            _margins(q),
            _log_odds_of(wanted),
            _log_odds_of(given),
        )
        return tuple(Pair(*values) for values in zip(*(column.tolist() for column in columns), strict=True))

    def log_odds(self, outputs: Sequence[NDArray[Any]]) -> Reals:
        """Return the log-odds of each row's answer, (rows,)."""
        return _log_odds_of(log_scores(outputs[0], self.form))


def log_scores(scores: NDArray[Any], form: OutputForm) -> Reals:
    """Return what softmax takes, (rows, classes), from logits or from probabilities; all of it finite."""
    values = np.asarray(scores, dtype=np.float64).reshape(len(scores), -1)
    known = np.nan_to_num(values, nan=-_MOST_LOGIT, posinf=_MOST_LOGIT, neginf=-_MOST_LOGIT)
    limited = np.clip(known, -_MOST_LOGIT, _MOST_LOGIT)
    return np.asarray(limited if form == "logits" else np.log(np.maximum(limited, _LEAST)))


def _is_broken(scores: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which rows (rows,) hold what is no number: damaged weights give such, and they agree with nothing."""
    return np.asarray(np.isnan(np.asarray(scores, dtype=np.float64).reshape(len(scores), -1)).any(axis=1))


def _normalised(logits: Reals) -> Reals:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def _margins(probabilities: Reals) -> Reals:
    if probabilities.shape[1] < 2:  # noqa: PLR2004 - one class has no second
        return np.ones(len(probabilities))
    two = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.asarray(two[:, 1] - two[:, 0])


def _log_odds_of(logits: Reals) -> Reals:
    """Return ln(p / (1 - p)) of the largest, (rows,)."""
    rows = np.arange(len(logits))
    first = logits.argmax(1)
    others = logits.copy()
    others[rows, first] = -np.inf
    top = others.max(1, initial=-np.inf)
    safe = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = safe + np.log(np.exp(others - safe[:, None]).sum(1))
        odds = logits[rows, first] - rest
    return np.asarray(np.clip(odds, -MOST_LOG_ODDS, MOST_LOG_ODDS))
