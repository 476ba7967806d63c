"""Predictions kept for labels that come late, as long as their file can be used; afterwards the gateway serves without.

Used by the thread that watches drift.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.domain.errors import NotSupported
from service.domain.verdicts import FeedbackResult
from service.engine.drift.labels import predictions_of, score_of
from service.engine.drift.predictions import Predictions, StoreFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from service.domain.drift import Scoring
    from service.domain.verdicts import Label
    from service.engine.drift.predictions import Kept
    from service.engine.drift.watching import ModelWatch

_LOGGER: Final = logging.getLogger("tiergate")
_RETRY_S: Final = 60.0
_NOT_ASKED_FOR: Final = "this gateway keeps no predictions that labels could be joined with: give it --predictions PATH"


@dataclass(frozen=True, slots=True)
class KeepingSettings:
    """Where predictions are kept, how many (0..1), and their bounds; ``path`` is ``None`` where none are."""

    path: Path | None = None
    share: float = 1.0
    most_bytes: int = 256 * 2**20
    most_s: float = 86_400.0


class Keeping:
    """The store, and what is done with it; an error of the store ends its use for a while, and nothing else."""

    def __init__(self, settings: KeepingSettings, wall: Callable[[], float]) -> None:
        """Open nothing yet; ``wall`` is the time since 1970, in seconds."""
        self._settings = settings
        self._wall = wall
        self._store: Predictions | None = None
        self._retry_at_s, self._retry_s = 0.0, _RETRY_S
        self.why_not = _NOT_ASKED_FOR

    @property
    def is_open(self) -> bool:
        """Whether predictions are kept."""
        return self._store is not None

    def share_of(self, watch: ModelWatch) -> float:
        """Return which share of a model's answers is to be kept; none where no label could call one right."""
        return self._settings.share if self._store is not None and _scoring(watch) else 0.0

    def open(self) -> None:
        """Open the store, where one is asked for."""
        if self._settings.path is None:
            return
        try:
            self._store = Predictions(self._settings.path, self._settings.most_bytes, self._settings.most_s)
        except StoreFailed as error:
            self._give_up(error)

    def open_again(self) -> bool:
        """Try a store that was given up once more, after a minute, two, four ... : a full disk may be cleared."""
        if self._store is not None or self._settings.path is None or self._wall() < self._retry_at_s:
            return False
        self.open()
        return self.is_open

    def close(self) -> None:
        """Close the store."""
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def keep(self, watch: ModelWatch) -> None:
        """Write what a model's taps have gathered."""
        kept = watch.taps.kept
        answers = [kept.popleft() for _ in range(len(kept))]
        if not answers or self._store is None:
            return
        now_s = self._wall()
        try:
            self._store.add(predictions_of(answers, watch.model.info, watch.reference, now_s), now_s)
            if self._retry_at_s > 0.0:
                self._recover()
        except StoreFailed as error:
            self._give_up(error)

    def remember(self, watch: ModelWatch) -> None:
        """Give a watch the states that a restart found, and the scores of the labels that came since."""
        model, store = watch.model.info.name, self._store
        if store is None:
            return
        try:
            for name in list(watch.watches):
                kept = store.state(model, name)
                if kept is not None and kept.digest == watch.digests[name]:
                    watch.resume(name, kept)
                since_s, most = max(watch.since_s[name], self._wall() - self._settings.most_s), watch.policy.window
                for score in store.scores(model, name, watch.digests[name], since_s, most):
                    watch.labelled(name, score)
        except StoreFailed as error:
            self._give_up(error)

    def keep_states(self, watch: ModelWatch) -> None:
        """Write the states that have changed."""
        if self._store is None:
            return
        try:
            for name, kept in watch.unwritten():
                self._store.note_state(watch.model.info.name, name, kept)
                watch.written[name] = kept
        except StoreFailed as error:
            self._give_up(error)

    def join(self, watch: ModelWatch, labels: Sequence[Label]) -> FeedbackResult:
        """Join labels with what was predicted; a label that comes again takes the first one's place.

        Raises:
            NotSupported: Predictions are not kept.
        """
        store, info, now_s = self._store, watch.model.info, self._wall()
        if store is None:
            raise NotSupported(self.why_not)
        scoring = _scoring(watch)
        if scoring is None:
            raise NotSupported(
                f"model '{info.name}' does not say when an answer is right: its manifest has no 'scoring' (build it "
                "again), or its first output holds no numbers"
            )
        unknown: list[str] = []
        unfit: list[str] = []
        scores: dict[str, tuple[Kept, float]] = {}
        try:
            for label in labels:
                kept = store.find(info.name, label.request_id, now_s)
                score = None if kept is None else score_of(label, kept.prediction.predicted, info, scoring)
                if kept is None:
                    unknown.append(label.request_id)
                elif score is None:
                    unfit.append(label.request_id)
                else:
                    scores[label.request_id] = (kept, score)
            store.score(list(scores.values()))
        except StoreFailed as error:
            self._give_up(error)
            raise NotSupported(self.why_not) from None
        for kept, score in scores.values():
            # What is counted is counted: a second label for an answer changes what a restart will read, and no more.
            if kept.score is None and watch.is_of_now(kept.prediction):
                watch.labelled(kept.prediction.variant, score)
        watch.feedback.update(joined=len(scores), unknown=len(unknown), unfit=len(unfit))
        return FeedbackResult(len(scores), tuple(unknown), tuple(unfit))

    def _recover(self) -> None:
        self._retry_at_s, self._retry_s, self.why_not = 0.0, _RETRY_S, ""
        _LOGGER.info("predictions are kept again", extra={"fields": {"path": str(self._settings.path)}})

    def _give_up(self, error: StoreFailed) -> None:
        self.close()
        self._retry_at_s, self._retry_s = self._wall() + self._retry_s, 2.0 * self._retry_s
        if self.why_not == (why_not := f"predictions are kept no more: {error}"):
            return
        self.why_not = why_not
        fields = {"path": str(self._settings.path), "why": str(error)}
        _LOGGER.error("predictions are kept no more: labels cannot be joined", extra={"fields": fields})


def _scoring(watch: ModelWatch) -> Scoring | None:
    return watch.reference.scoring if watch.has_scores else None
