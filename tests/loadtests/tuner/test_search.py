from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from loadtests.h2load import LoadError
from loadtests.tuner.notebook import Notebook
from loadtests.tuner.question import Limits
from loadtests.tuner.score import Figures, Score, misses, score
from loadtests.tuner.search import Progress, Search
from loadtests.tuner.space import make_space
from loadtests.tuner.trials import Trials, interrupts_held
from tests.loadtests.tuner.questions import question

if TYPE_CHECKING:
    from pathlib import Path

    from loadtests.tuner.question import Question

BUDGET = 40.0


def search_of(asked: Question, path: Path | None = None) -> Search:
    trials = Trials(asked, make_space(asked), Notebook(asked.digest(), path))
    return Search(trials, BUDGET)


def figures(attainment: float, accuracy: float, *, error: float = 0.0, busy: float = 0.5) -> Figures:
    return Figures(100, attainment, error, accuracy, accuracy / attainment, busy, 0.01)


def test_a_candidate_that_keeps_the_limits_is_above_every_one_that_does_not() -> None:
    limits = Limits(attainment=0.99)
    kept, missed = (score([item], limits) for item in (figures(0.99, 0.5), figures(0.98, 0.9)))
    assert kept > missed
    assert missed > score([figures(0.97, 0.95)], limits)
    assert kept == Score(0.0, 0.5)


def test_attainment_counts_at_its_lower_end_while_searching() -> None:
    assert score([figures(0.99, 0.9, error=0.004)], Limits(attainment=0.99)).kept == pytest.approx(-0.004)
    assert score([figures(0.99, 0.9, error=0.01)], Limits(attainment=0.98)).kept == 0.0


def test_one_brutal_burst_does_not_put_the_floor_out_of_reach() -> None:
    # The error is large because nearly all misses are in one stretch; of 10 points allowed, 5 are taken off.
    assert score([figures(0.951, 0.9, error=0.2)], Limits(attainment=0.9)).kept == 0.0
    assert score([figures(0.94, 0.9, error=0.2)], Limits(attainment=0.9)).kept == pytest.approx(-0.01)


def test_each_limit_is_told_with_its_miss() -> None:
    found = misses(figures(0.9, 0.45, busy=0.8), Limits(attainment=0.95, accuracy=0.6, busy_ratio=0.5))
    assert found == pytest.approx({"attainment": 0.05, "accuracy": 0.1, "busy_ratio": 0.3})


def test_cost_is_an_objective() -> None:
    assert score([figures(1.0, 0.9)], Limits(objective="cost")).objective == -0.01


def test_a_search_beats_the_base_within_its_budget() -> None:
    asked = question(rate_hz=300.0, seconds=2.0)
    search = search_of(asked)
    best = search.run()
    start = search.trials.space.start
    assert search.scores[best] > search.scores[start]
    assert search.trials.spent <= 1.5 * BUDGET


def test_the_same_question_has_the_same_answer() -> None:
    first, second = search_of(question(seconds=1.0)), search_of(question(seconds=1.0))
    assert first.run() == second.run()
    assert first.scores == second.scores


def test_what_does_not_pay_goes_back() -> None:
    # Load is so low that no threshold matters.
    search = search_of(question(rate_hz=20.0, cv=1.0))
    assert search.run() == search.trials.space.start


def test_a_search_brings_cpu_time_under_a_ceiling() -> None:
    search = search_of(question(Limits(attainment=0.5, busy_ratio=0.3), rate_hz=40.0, cv=1.0))
    best = search.run()
    assert search.scores[search.trials.space.start].kept < 0.0
    assert search.scores[best].kept == 0.0


def test_the_least_cost_is_found_by_a_price_and_keeps_the_accuracy_floor() -> None:
    asked = question(Limits(attainment=0.5, accuracy=0.9, objective="cost"), rate_hz=20.0, cv=1.0)
    search = search_of(asked)
    best = search.run()
    assert search.trials.space.policy(best).price_per_cpu_s > 0.0
    assert search.scores[best].objective > 0.5 * search.scores[search.trials.space.start].objective
    assert search.trials.figures(1, best)[0].answer_accuracy >= 0.9


def test_an_interrupted_search_keeps_the_best_so_far() -> None:
    asked = question(rate_hz=300.0, seconds=2.0)

    def interrupt(progress: Progress) -> None:
        if progress.spent > BUDGET / 2:
            raise KeyboardInterrupt

    search = search_of(asked)
    search.on_progress = interrupt
    best = search.run()
    assert search.is_interrupted
    assert search.scores[best] == max(search.scores.values())


def test_a_search_taken_up_again_simulates_nothing_twice(tmp_path: Path) -> None:
    path, asked = tmp_path / "state.jsonl", question(seconds=1.0)
    whole = search_of(asked, path).run()
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]) + lines[-1][:30], encoding="utf-8")  # a crash cut a line short
    assert search_of(asked, path).run() == whole
    keys = [json.dumps(json.loads(line).get("candidate")) + line[:12] for line in path.read_text().splitlines()[1:]]
    assert len(keys) == len(set(keys)) == len(lines) - 1


def test_a_state_of_another_question_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.jsonl"
    Notebook(question().digest(), path)
    with pytest.raises(LoadError, match="another model, trace, limit or seed"):
        Notebook(question(Limits(attainment=0.7)).digest(), path)
    path.write_text("no JSON", encoding="utf-8")
    with pytest.raises(LoadError, match="cannot be used"):
        Notebook(question().digest(), path)


def test_two_processes_find_the_same_scores() -> None:
    asked = question(seconds=1.0)
    space = make_space(asked)
    candidates = [space.start, *space.neighbours(space.start)[:2]]
    with Trials(asked, space, Notebook("")) as alone, Trials(asked, space, Notebook(""), processes=2) as together:
        assert alone.run(1, candidates) == together.run(1, candidates)


def test_a_disk_that_fails_ends_the_state_and_not_the_search(tmp_path: Path) -> None:
    path = tmp_path / "state"
    notebook = Notebook("question", path)
    path.unlink()
    path.symlink_to("/dev/full")
    key = (1, "{}")
    notebook.put(key, ())
    assert notebook.get(key) == ()
    assert notebook.fault == "No space left on device"


def test_an_interruption_waits_for_what_must_not_be_cut_short() -> None:
    done = []

    def start() -> None:
        with interrupts_held():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("processes")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert done == ["processes"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
