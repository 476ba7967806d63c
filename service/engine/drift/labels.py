"""Labels that come late: what is kept of an answer, and how good a label says that it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from service.engine.drift.predictions import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from service.domain.variants import ModelInfo
    from service.domain.verdicts import Label
    from service.engine.drift.taps import KeptAnswer
    from service.policy.drift.pairs import Agreement


def predictions_of(
    answers: Sequence[KeptAnswer], info: ModelInfo, agreement: Agreement, now_s: float
) -> Iterable[Prediction]:
    """Yield what is kept of answers: the class and the confidence of each row; all rows are computed together."""
    outputs = np.concatenate([item.output.reshape(len(item.output), -1) for item in answers])  # (rows, classes)
    classes = outputs.argmax(1).astype(np.float64)
    log_odds = getattr(agreement, "log_odds", None)
    odds = np.zeros(len(outputs)) if log_odds is None else log_odds([outputs])
    confidence = (1.0 / (1.0 + np.exp(-odds))).astype(np.float32)
    digests = {item.name: item.digest for item in info.variants}
    start = 0
    for item in answers:
        rows = slice(start, start + len(item.output))
        start = rows.stop
        found = classes[rows], confidence[rows]
        yield Prediction(item.request_id, info.name, item.variant, digests[item.variant], now_s, *found)


def score_of(label: Label, predicted: NDArray[np.float64], info: ModelInfo) -> float | None:
    """Return the share of rows that a label calls right, ``None`` where it does not fit the prediction."""
    if len(label.values) != len(predicted):
        return None
    wanted = [_class_of(value, info) for value in label.values]
    if any(item is None for item in wanted):
        return None
    return float(np.mean([item == found for item, found in zip(wanted, predicted.tolist(), strict=True)]))


def _class_of(value: Any, info: ModelInfo) -> int | None:  # noqa: ANN401 - whatever JSON holds
    """Return the index of the class that a label names by its index or its name."""
    if isinstance(value, str):
        return info.labels.index(value) if value in info.labels else None
    classes = len(info.labels) or info.outputs[0].shape[-1]  # negative where the manifest leaves their number open
    is_index = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if is_index and (classes < 0 or value < classes) else None
