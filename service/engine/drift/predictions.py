"""Kept predictions, so that labels may come late: an SQLite file with its own bounds.

Kept of each answer are the request's id, model, version, variant, time, what was predicted and how sure it was; never
an input. Answers are written in batches by one thread, which is the only one that uses this. Rows end with their age,
and the oldest make room when the file reaches its size. The file is read again after a restart.

Whatever the file does, the gateway serves on: an error of SQLite (a damaged file, a full disk) is a ``StoreFailed``,
and whoever uses the store stops.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_PAGE_BYTES: Final = 4096
_TRIMMED_RATIO: Final = 0.9
_TRIMMED_ROWS: Final = 2000
_BUSY_S: Final = 1.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS answers (
    place INTEGER PRIMARY KEY,
    id TEXT NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL, variant TEXT NOT NULL,
    at_s REAL NOT NULL, predicted BLOB NOT NULL, confidence BLOB NOT NULL,
    score REAL
);
CREATE INDEX IF NOT EXISTS by_id ON answers (id);
CREATE INDEX IF NOT EXISTS labelled ON answers (model, version, variant, place) WHERE score IS NOT NULL;
"""


class StoreFailed(Exception):
    """The file cannot be used any more."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One kept answer: what was predicted for each row (a class, or a value), and how sure it was (0..1)."""

    request_id: str
    model: str
    version: str
    variant: str
    at_s: float
    predicted: NDArray[np.float64]  # (rows,)
    confidence: NDArray[np.float32]  # (rows,)


@dataclass(frozen=True, slots=True)
class Kept:
    """A prediction with its place in the file; ``score`` is what a label gave it before, ``None`` without one."""

    place: int
    prediction: Prediction
    score: float | None


class Predictions:
    """One open file, used by one thread; ``most_bytes`` bounds it, ``most_s`` ends a row (seconds)."""

    def __init__(self, path: Path, most_bytes: int, most_s: float) -> None:
        """Open the file, or make it.

        Raises:
            StoreFailed: It is no such file, is damaged, or cannot be written.
        """
        self._most_s = most_s
        self._most_pages = max(16, most_bytes // _PAGE_BYTES)
        try:
            self._file = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            self._prepare()
        except sqlite3.Error as error:
            raise StoreFailed(f"{path}: {error}") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def add(self, predictions: Iterable[Prediction], now_s: float) -> None:
        """Keep predictions, and let go of what is too old or too much.

        Raises:
            StoreFailed: The file does not take them.
        """
        rows = [
            (
                item.request_id,
                item.model,
                item.version,
                item.variant,
                item.at_s,
                item.predicted.astype("<f8").tobytes(),
                item.confidence.astype("<f4").tobytes(),
            )
            for item in predictions
        ]
        try:
            self._file.execute("BEGIN IMMEDIATE")
            self._trim(now_s, max(_TRIMMED_ROWS, 2 * len(rows)))
            self._file.executemany(
                "INSERT INTO answers (id, model, version, variant, at_s, predicted, confidence)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            self._file.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreFailed(str(error)) from None

    def find(self, model: str, request_id: str) -> Kept | None:
        """Return the last kept prediction of that id, ``None`` where there is none (any more).

        Raises:
            StoreFailed: The file cannot be read.
        """
        query = (
            "SELECT place, version, variant, at_s, predicted, confidence, score FROM answers"
            " WHERE id = ? AND model = ? ORDER BY place DESC LIMIT 1"
        )
        for place, version, variant, at_s, predicted, confidence, score in self._select(query, (request_id, model)):
            values = np.frombuffer(predicted, dtype="<f8"), np.frombuffer(confidence, dtype="<f4")
            return Kept(place, Prediction(request_id, model, version, variant, at_s, *values), score)
        return None

    def score(self, scores: Sequence[tuple[Kept, float]]) -> None:
        """Note how good labels say that predictions were: the mean over their rows, 0..1; the last one holds.

        Raises:
            StoreFailed: The file does not take it.
        """
        rows = [(value, kept.place) for kept, value in scores]
        try:
            self._file.execute("BEGIN IMMEDIATE")
            self._file.executemany("UPDATE answers SET score = ? WHERE place = ?", rows)
            self._file.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreFailed(str(error)) from None

    def scores(self, model: str, version: str, variant: str, most: int) -> list[float]:
        """Return the last scores of a variant, oldest first, at most so many.

        Raises:
            StoreFailed: The file cannot be read.
        """
        query = (
            "SELECT score FROM answers WHERE model = ? AND version = ? AND variant = ? AND score IS NOT NULL"
            " ORDER BY place DESC LIMIT ?"
        )
        return [score for (score,) in self._select(query, (model, version, variant, most))][::-1]

    def _prepare(self) -> None:
        for line in (
            f"PRAGMA page_size = {_PAGE_BYTES}",
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = NORMAL",  # a power cut may take the last seconds, not the file
            f"PRAGMA max_page_count = {self._most_pages}",
        ):
            self._file.execute(line)
        self._file.executescript(_SCHEMA)
        (verdict,) = self._file.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)

    def _trim(self, now_s: float, most: int) -> None:
        oldest = "SELECT place FROM answers ORDER BY place LIMIT ?"  # they come in the order of time
        self._file.execute(
            f"DELETE FROM answers WHERE at_s < ? AND place IN ({oldest})",  # noqa: S608 - nothing comes from outside
            (now_s - self._most_s, most),
        )
        ((pages,),) = self._file.execute("PRAGMA page_count")
        ((free,),) = self._file.execute("PRAGMA freelist_count")
        if pages - free > _TRIMMED_RATIO * self._most_pages:
            self._file.execute(f"DELETE FROM answers WHERE place IN ({oldest})", (most,))  # noqa: S608 - as above

    def _select(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        try:
            return self._file.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StoreFailed(str(error)) from None
