"""Kept predictions, so that labels may come late: an SQLite file with its own bounds.

Kept of each answer are the request's id, model, variant and its file's digest, time, what was predicted and how sure it
was; never an input. Answers are written in batches by one thread, which is the only one that uses this. Rows end with
their age, and the oldest make room when the file reaches its size. The file is read again after a restart; beside the
answers it holds in which state each variant was left.

Whatever the file does, the gateway serves on: an error of SQLite (a damaged file, a full disk) is a ``StoreFailed``,
and whoever uses the store stops.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from service.domain.drift import DriftState

_PAGE_BYTES: Final = 4096
_TRIMMED_RATIO: Final = 0.9
_TRIMMED_ROWS: Final = 2000
_BUSY_S: Final = 1.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS answers (
    place INTEGER PRIMARY KEY,
    id TEXT NOT NULL, model TEXT NOT NULL, variant TEXT NOT NULL, digest TEXT NOT NULL,
    at_s REAL NOT NULL, predicted BLOB NOT NULL, confidence BLOB NOT NULL,
    score REAL
);
CREATE INDEX IF NOT EXISTS by_id ON answers (id);
CREATE INDEX IF NOT EXISTS labelled ON answers (model, variant, digest, place) WHERE score IS NOT NULL;
CREATE TABLE IF NOT EXISTS states (
    model TEXT NOT NULL, variant TEXT NOT NULL, digest TEXT NOT NULL,
    state TEXT NOT NULL, is_held INTEGER NOT NULL, since_s REAL NOT NULL, by TEXT NOT NULL, why TEXT NOT NULL,
    PRIMARY KEY (model, variant)
) WITHOUT ROWID;
"""
_INSERT: Final = (
    "INSERT INTO answers (id, model, variant, digest, at_s, predicted, confidence) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_OLDER_HALF: Final = "SELECT place FROM answers ORDER BY place LIMIT (SELECT 1 + count(*) / 2 FROM answers)"


class StoreFailed(Exception):
    """The file cannot be used any more."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One kept answer: what was predicted for each row, and how sure it was (0..1).

    ``digest`` is that of the variant's file: another file is another variant, whatever its name.
    """

    request_id: str
    model: str
    variant: str
    digest: str
    at_s: float
    predicted: NDArray[np.float64]  # (rows, numbers): a class, values, or boxes of six numbers each
    confidence: NDArray[np.float32]  # (rows,)


@dataclass(frozen=True, slots=True)
class Kept:
    """A prediction with its place in the file; ``score`` is what a label gave it before, ``None`` without one."""

    place: int
    prediction: Prediction
    score: float | None


@dataclass(frozen=True, slots=True)
class KeptState:
    """The state in which a variant was left, whose file has this digest: since when, by whom, on what evidence."""

    digest: str
    state: DriftState
    is_held: bool
    since_s: float
    by: Literal["drift", "hand"]
    why: str


class Predictions:
    """One open file, used by one thread; ``most_bytes`` bounds it, ``most_s`` ends a row (seconds)."""

    def __init__(self, path: Path, most_bytes: int, most_s: float) -> None:
        """Open the file, or make it.

        Raises:
            StoreFailed: It is no such file, is damaged, or cannot be written.
        """
        self._most_s = most_s
        self._most_pages = max(16, most_bytes // _PAGE_BYTES)
        with contextlib.suppress(OSError):  # what is wrong with it, SQLite says
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
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
                item.variant,
                item.digest,
                item.at_s,
                item.predicted.astype("<f8").tobytes(),
                item.confidence.astype("<f4").tobytes(),
            )
            for item in predictions
        ]
        self._write(_INSERT, rows, lambda: self._trim(now_s, max(_TRIMMED_ROWS, 2 * len(rows))))

    def find(self, model: str, request_id: str, now_s: float) -> Kept | None:
        """Return the last kept prediction of that id, ``None`` where there is none (any more).

        Raises:
            StoreFailed: The file cannot be read.
        """
        query = (
            "SELECT place, variant, digest, at_s, predicted, confidence, score FROM answers"
            " WHERE id = ? AND model = ? AND at_s >= ? ORDER BY place DESC LIMIT 1"
        )
        asked = (request_id, model, now_s - self._most_s)
        for place, variant, digest, at_s, predicted, confidence, score in self._select(query, asked):
            sure = np.frombuffer(confidence, dtype="<f4")
            read = np.frombuffer(predicted, dtype="<f8").reshape(len(sure), -1)
            return Kept(place, Prediction(request_id, model, variant, digest, at_s, read, sure), score)
        return None

    def score(self, scores: Sequence[tuple[Kept, float]]) -> None:
        """Note how good labels say that predictions were: the mean over their rows, 0..1; the last one holds.

        Raises:
            StoreFailed: The file does not take it.
        """
        rows = [(value, kept.place) for kept, value in scores]
        self._write("UPDATE answers SET score = ? WHERE place = ?", rows)

    def scores(self, model: str, variant: str, digest: str, since_s: float, most: int) -> list[float]:
        """Return the last scores of a variant's answers since a moment, oldest first, at most so many.

        Raises:
            StoreFailed: The file cannot be read.
        """
        query = (
            "SELECT score FROM answers WHERE model = ? AND variant = ? AND digest = ? AND score IS NOT NULL"
            " AND at_s >= ? ORDER BY place DESC LIMIT ?"
        )
        return [score for (score,) in self._select(query, (model, variant, digest, since_s, most))][::-1]

    def note_state(self, model: str, variant: str, item: KeptState) -> None:
        """Note in which state a variant is now.

        Raises:
            StoreFailed: The file does not take it.
        """
        row = (model, variant, item.digest, item.state, item.is_held, item.since_s, item.by, item.why)
        self._write("INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [row])

    def state(self, model: str, variant: str) -> KeptState | None:
        """Return the state in which a variant was left, ``None`` where nothing was ever noted.

        Raises:
            StoreFailed: The file cannot be read.
        """
        query = "SELECT digest, state, is_held, since_s, by, why FROM states WHERE model = ? AND variant = ?"
        for digest, state, is_held, since_s, by, why in self._select(query, (model, variant)):
            return KeptState(digest, state, bool(is_held), since_s, by, why)
        return None

    def _write(self, line: str, rows: Sequence[tuple[object, ...]], before: Callable[[], None] | None = None) -> None:
        """Write in one transaction; where there is no room for it, the older half of the answers makes some, once."""
        for is_last in (False, True):
            try:
                self._file.execute("BEGIN IMMEDIATE")
                if before is not None:
                    before()
                self._file.executemany(line, rows)
                self._file.execute("COMMIT")
            except sqlite3.Error as error:
                if is_last or getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
                    raise StoreFailed(str(error)) from None
                self._make_room()
            else:
                return

    def _make_room(self) -> None:
        try:
            if self._file.in_transaction:
                self._file.execute("ROLLBACK")
            self._file.execute(f"DELETE FROM answers WHERE place IN ({_OLDER_HALF})")  # noqa: S608 - nothing comes from outside
        except sqlite3.Error as error:
            raise StoreFailed(str(error)) from None

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
