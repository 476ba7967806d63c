"""Kept predictions: found again after a restart, bounded, and harmless when the file is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from service.engine.drift.predictions import KeptState, Prediction, Predictions, StoreFailed

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES = 4 * 2**20
DAY_S = 86_400.0
NOW_S = 1000.0
HELD = KeptState("sha", "quarantined", is_held=True, since_s=2.0, by="hand", why="set by hand")


def prediction(request_id: str, at_s: float = 1000.0, variant: str = "pruned", rows: int = 1) -> Prediction:
    return Prediction(
        request_id, "winds", variant, "sha", at_s, np.arange(rows, dtype=np.float64), np.full(rows, 0.9, np.float32)
    )


def opened(path: Path, most_bytes: int = MOST_BYTES, most_s: float = DAY_S) -> Predictions:
    return Predictions(path, most_bytes, most_s)


def test_predictions_are_found_by_id_after_the_file_was_opened_again(tmp_path: Path) -> None:
    store = opened(tmp_path / "kept.db")
    store.add([prediction("a"), prediction("b", rows=3)], 1000.0)
    store.close()
    store = opened(tmp_path / "kept.db")
    found = store.find("winds", "b", NOW_S)
    assert found is not None
    assert found.prediction.predicted.tolist() == [[0.0], [1.0], [2.0]]
    assert found.prediction.variant == "pruned"
    assert store.find("winds", "c", NOW_S) is None
    assert store.find("other", "a", NOW_S) is None
    store.close()


def test_last_prediction_of_an_id_that_comes_twice_is_found(tmp_path: Path) -> None:
    store = opened(tmp_path / "kept.db")
    store.add([prediction("a", variant="pruned"), prediction("a", variant="quantized")], 1000.0)
    found = store.find("winds", "a", NOW_S)
    assert found is not None
    assert found.prediction.variant == "quantized"
    store.close()


def test_scores_come_back_oldest_first_and_a_second_label_takes_the_first_ones_place(tmp_path: Path) -> None:
    store = opened(tmp_path / "kept.db")
    store.add([prediction(str(number)) for number in range(5)], 1000.0)
    kept = [store.find("winds", str(number), NOW_S) for number in range(5)]
    store.score([(item, number / 10) for number, item in enumerate(kept) if item is not None])
    again = store.find("winds", "4", NOW_S)
    assert again is not None
    assert again.score == 0.4
    store.score([(again, 1.0)])
    assert store.scores("winds", "pruned", "sha", 0.0, 3) == [0.2, 0.3, 1.0]
    assert store.scores("winds", "pruned", "another file", 0.0, 3) == []
    assert store.scores("winds", "pruned", "sha", NOW_S + 1.0, 3) == []
    store.close()


def test_predictions_end_with_their_age(tmp_path: Path) -> None:
    store = opened(tmp_path / "kept.db", most_s=60.0)
    store.add([prediction("old", at_s=1000.0)], 1000.0)
    store.add([prediction("new", at_s=1061.0)], 1061.0)
    assert store.find("winds", "old", NOW_S) is None
    assert store.find("winds", "new", NOW_S) is not None
    store.close()


def test_oldest_predictions_make_room_when_the_file_is_full(tmp_path: Path) -> None:
    path = tmp_path / "kept.db"
    store = opened(path, most_bytes=2**20)
    for batch in range(30):
        store.add([prediction(f"{batch}-{number}") for number in range(1000)], 1000.0)
    assert store.find("winds", "0-0", NOW_S) is None
    assert store.find("winds", "29-999", NOW_S) is not None
    store.close()
    assert path.stat().st_size <= 2**20


def test_older_half_makes_room_where_rows_are_larger_than_those_before(tmp_path: Path) -> None:
    store = opened(tmp_path / "kept.db", most_bytes=2**20)
    for batch in range(8):
        store.add([prediction(f"{batch}-{number}") for number in range(1000)], 1000.0)
    store.add([prediction(f"big-{number}", rows=500) for number in range(100)], 1000.0)
    assert store.find("winds", "big-99", NOW_S) is not None
    assert store.find("winds", "7-999", NOW_S) is not None
    assert store.find("winds", "0-0", NOW_S) is None
    store.close()


def test_prediction_that_is_too_old_is_not_found_though_nothing_came_after_it(tmp_path: Path) -> None:
    store = opened(tmp_path / "kept.db", most_s=60.0)
    store.add([prediction("old")], NOW_S)
    assert store.find("winds", "old", NOW_S + 60.0) is not None
    assert store.find("winds", "old", NOW_S + 61.0) is None
    store.close()


def test_file_is_its_owners_alone(tmp_path: Path) -> None:
    opened(tmp_path / "kept.db").close()
    assert (tmp_path / "kept.db").stat().st_mode & 0o077 == 0


def test_state_is_found_after_the_file_was_opened_again(tmp_path: Path) -> None:
    store = opened(tmp_path / "kept.db")
    assert store.state("winds", "pruned") is None
    for state in (KeptState("sha", "demoted", is_held=False, since_s=1.0, by="drift", why="a drop"), HELD):
        store.note_state("winds", "pruned", state)
    store.close()
    store = opened(tmp_path / "kept.db")
    assert store.state("winds", "pruned") == HELD
    store.close()


def test_batch_that_the_file_cannot_take_is_a_named_failure(tmp_path: Path) -> None:
    store = opened(tmp_path / "kept.db", most_bytes=2**17)
    with pytest.raises(StoreFailed, match="full"):
        store.add([prediction(str(number)) for number in range(20_000)], 1000.0)
    store.close()


def test_damaged_file_is_a_named_failure(tmp_path: Path) -> None:
    path = tmp_path / "kept.db"
    path.write_bytes(b"this is no database, " * 1000)
    with pytest.raises(StoreFailed, match=r"kept\.db"):
        opened(path)


def test_file_damaged_in_the_middle_is_a_named_failure(tmp_path: Path) -> None:
    path = tmp_path / "kept.db"
    store = opened(path)
    store.add([prediction(str(number)) for number in range(5000)], 1000.0)
    store.close()
    content = bytearray(path.read_bytes())
    content[8192 : len(content) // 2] = b"\xa5" * (len(content) // 2 - 8192)
    path.write_bytes(content)
    with pytest.raises(StoreFailed):
        opened(path)


def test_folder_that_is_not_there_is_a_named_failure(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="unable to open"):
        opened(tmp_path / "nowhere" / "kept.db")
