"""From logits to probabilities, and how far two models' probabilities lie apart.

Kullback-Leibler divergence, in nats: sum over classes of p log(p / q), mean over rows. It moves long before accuracy
does, and needs no labels.

A model may answer with probabilities instead of logits (one that ends in a softmax, a forest of trees). They are told
by their sum, and turned into their logarithms, of which they are the softmax; a probability below a hundred-thousandth
counts as that, as the logarithm of zero is no number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from variants.recipe import Floats

Reals = NDArray[np.float64]
SUM_ERROR: Final = 1e-3
LEAST: Final = 1e-5


def as_logits(scores: Floats) -> Floats:
    """Return scores (rows, classes) of which the softmax gives class probabilities: probabilities become logarithms."""
    are_probabilities = scores.min() >= 0.0 and bool((np.abs(scores.sum(axis=1) - 1.0) < SUM_ERROR).all())
    return np.log(np.maximum(scores, LEAST)).astype(np.float32) if are_probabilities else scores


def softmax(logits: Floats) -> Reals:
    """Return class probabilities (rows, classes)."""
    return np.asarray(np.exp(log_softmax(logits)))


def log_softmax(logits: Floats) -> Reals:
    """Return log probabilities (rows, classes), shifted by the largest logit so that nothing overflows."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def mean_kl(reference: Floats, logits: Floats) -> float:
    """Return the mean divergence of ``logits`` from ``reference``, both (rows, classes), in nats; never negative."""
    log_p, log_q = log_softmax(reference), log_softmax(logits)
    return max(0.0, float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean()))
