"""The rule of domination, and what routing says of each variant."""

from __future__ import annotations

from dataclasses import replace

from variants.domination import Contender, decide_routing, dominates
from variants.manifest import Gate

PASSED = (Gate(name="accuracy", passed=True, detail="fine"),)
A = Contender("a", accuracy=0.98, file_bytes=1000, p50_s={1: 0.001, 8: 0.008}, gates=PASSED)


def test_dominates_when_better_in_one_and_no_worse_in_the_others() -> None:
    assert dominates(replace(A, file_bytes=900), A)
    assert dominates(replace(A, accuracy=0.99), A)
    assert dominates(replace(A, p50_s={1: 0.0005, 8: 0.008}), A)


def test_dominates_not_when_worse_in_anything() -> None:
    better = replace(A, accuracy=0.99, file_bytes=900)
    assert not dominates(replace(better, accuracy=0.97), A)
    assert not dominates(replace(better, file_bytes=1001), A)
    assert not dominates(replace(better, p50_s={1: 0.001, 8: 0.009}), A), "slower at one batch size is enough"


def test_dominates_takes_less_than_five_per_cent_of_time_for_noise() -> None:
    slightly_slower = replace(A, p50_s={1: 0.00104, 8: 0.0082})
    assert not dominates(A, slightly_slower)
    assert not dominates(slightly_slower, A)
    assert dominates(replace(slightly_slower, accuracy=0.99), A)


def test_dominates_full_only_with_proof() -> None:
    full = replace(A, is_full=True)
    better = replace(A, accuracy=0.99, file_bytes=100)
    assert not dominates(better, full)
    assert dominates(replace(better, is_proven=True), full)


def test_routing_names_the_dominator_that_is_not_dominated_itself() -> None:
    best, middle = replace(A, name="best", file_bytes=10), replace(A, name="middle", file_bytes=100)
    routing = decide_routing([A, middle, best])
    assert [routing[name].state for name in ("a", "middle", "best")] == ["dominated", "dominated", "routable"]
    assert "dominated by best" in routing["a"].reason


def test_routing_keeps_full_as_the_reference_and_says_why() -> None:
    full = replace(A, name="full", is_full=True)
    routing = decide_routing([full, replace(A, name="twin", file_bytes=10)])
    assert routing["full"].state == "routable"
    assert "kept as the reference: twin measured no worse" in routing["full"].reason


def test_routing_rejects_what_misses_a_gate_and_does_not_let_it_dominate() -> None:
    missed = (Gate(name="accuracy", passed=False, detail="9.00 points below full"),)
    routing = decide_routing([A, replace(A, name="tiny", file_bytes=10, gates=missed)])
    assert routing["a"].state == "routable"
    assert routing["tiny"].state == "rejected"
    assert routing["tiny"].reason == "misses gate accuracy: 9.00 points below full"
