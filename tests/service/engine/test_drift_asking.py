"""Questions to the thread that watches drift: each one ends."""

from __future__ import annotations

from queue import Empty

import pytest

from service.domain.errors import Draining
from service.engine.drift.asking import Asking


def test_question_is_answered_by_who_takes_it() -> None:
    asking = Asking()
    right, wrong = asking.ask(lambda: 3), asking.ask(lambda: int("no number"))
    for _ in range(2):
        asked = asking.take(0.0)
        assert asked is not None
        asked.work()
    assert right.result(0.0) == 3
    with pytest.raises(ValueError, match="no number"):
        wrong.result(0.0)
    with pytest.raises(Empty):
        asking.take(0.0)


def test_question_that_nobody_waits_for_any_more_is_not_worked_on() -> None:
    asking, done = Asking(), []
    asking.ask(lambda: done.append(1)).cancel()
    asked = asking.take(0.0)
    assert asked is not None
    asked.work()
    assert done == []


def test_questions_before_and_after_the_end_are_refused() -> None:
    asking = Asking()
    before = asking.ask(lambda: 3)
    asking.close()
    asking.end()
    for answer in (before, asking.ask(lambda: 4)):
        with pytest.raises(Draining):
            answer.result(0.0)
