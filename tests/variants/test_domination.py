"""The rule of domination, and what routing says of each variant."""

from __future__ import annotations

from dataclasses import replace

from variants.domination import Contender, decide_routing, dominates
from variants.evidence import Gate

PASSED = (Gate(name="accuracy", passed=True, detail="fine"),)
MIB = 2**20
A = Contender("a", accuracy=0.98, file_bytes=1000, memory_bytes=20 * MIB, p50_s={1: 0.001, 8: 0.008}, gates=PASSED)


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


def test_dominates_not_when_it_needs_more_memory_than_noise_explains() -> None:
    better = replace(A, accuracy=0.99, file_bytes=900)
    assert dominates(replace(better, memory_bytes=22 * MIB), A), "5 % of 20 MiB and 1 MiB"
    assert not dominates(replace(better, memory_bytes=22 * MIB + 1), A)
    assert dominates(replace(A, memory_bytes=10 * MIB), A)


def test_dominates_by_a_smaller_file_alone() -> None:
    assert dominates(replace(A, file_bytes=999), replace(A, p50_s={1: 0.0011, 8: 0.009}))


def test_routing_keeps_what_is_dominated_only_by_what_is_out_itself() -> None:
    second = replace(A, name="second", file_bytes=1001, p50_s={1: 0.00096, 8: 0.0077})
    third = replace(A, name="third", file_bytes=1002, p50_s={1: 0.00092, 8: 0.0074})
    assert dominates(A, second)
    assert dominates(second, third)
    assert not dominates(A, third)
    routing = decide_routing([third, second, A])
    assert {name: found.dominated_by for name, found in routing.items()} == {"a": None, "second": "a", "third": None}


def test_dominates_full_only_with_proof() -> None:
    full = replace(A, is_full=True)
    better = replace(A, accuracy=0.99, file_bytes=100)
    assert not dominates(better, full)
    assert dominates(replace(better, is_proven=True), full)


def test_routing_names_the_dominator_that_is_not_dominated_itself() -> None:
    best, middle = replace(A, name="best", file_bytes=10), replace(A, name="middle", file_bytes=100)
    routing = decide_routing([A, middle, best])
    assert [routing[name].state for name in ("a", "middle", "best")] == ["dominated", "dominated", "routable"]
    assert [routing[name].dominated_by for name in ("a", "middle", "best")] == ["best", "best", None]
    assert "dominated by best" in routing["a"].reason
    assert "no slower (within 5 %)" in routing["a"].reason


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
