from __future__ import annotations

import pytest

from service.policy.arithmetic import PATHS, Int8Evidence, judge_int8
from variants import machine

VNNI = ("avx2", "fma", "avx512f", "avx512_vnni")
AVX2 = ("avx2", "fma")
ARM = ("asimd", "asimddp")
UNPROVEN = Int8Evidence(measured=("avx512_vnni",), proven=())
SMALL_WEIGHTS = Int8Evidence(measured=("avx512_vnni",), proven=("avx2", "avx512f"))


@pytest.mark.parametrize(
    ("evidence", "isa", "is_right"),
    [
        (UNPROVEN, VNNI, True),
        (UNPROVEN, ("avx2", "avx_vnni"), True),
        (UNPROVEN, AVX2, False),
        (UNPROVEN, ("avx2", "avx512f"), False),
        (UNPROVEN, ARM, False),
        (UNPROVEN, (), False),
        (SMALL_WEIGHTS, AVX2, True),
        (SMALL_WEIGHTS, ARM, True),
        (SMALL_WEIGHTS, (), True),
        (Int8Evidence(("avx2",), ()), AVX2, True),
        (Int8Evidence(("avx2",), ()), VNNI, True),
        (Int8Evidence(("avx2",), ()), ("avx2", "avx512f"), False),
        (Int8Evidence(("asimddp",), ()), ARM, True),
        (Int8Evidence(("avx512_vnni",), (), loss=0.002, is_small=True), AVX2, True),
        (Int8Evidence(("avx512_vnni",), (), loss=0.03), AVX2, False),
        (Int8Evidence(("avx512_vnni",), (), loss=0.002, is_small=True), ARM, False),
    ],
)
def test_int8_is_right_where_it_was_measured_or_sums_are_exact_or_cannot_be_cut(
    evidence: Int8Evidence, isa: tuple[str, ...], is_right: bool
) -> None:
    assert judge_int8(evidence, isa).is_right is is_right


@pytest.mark.parametrize(("isa", "can_be"), [(AVX2, True), ((), True), (ARM, False), (VNNI, False)])
def test_the_runtime_can_be_told_to_be_exact_on_x86_only(isa: tuple[str, ...], can_be: bool) -> None:
    assert judge_int8(UNPROVEN, isa).can_be_precise is can_be


def test_the_reason_names_the_path_and_the_loss() -> None:
    assert judge_int8(UNPROVEN, AVX2).why == "on avx2 sums of its products may be cut off at 16 bits"
    assert "loses 3.00 points" in judge_int8(Int8Evidence((), (), loss=0.03), AVX2).why
    assert judge_int8(UNPROVEN, ARM).why == "its answers on asimddp were never measured"


def test_paths_are_those_that_the_build_knows() -> None:
    assert PATHS == machine.INT8_PATHS
    assert set(PATHS) <= set(machine.KNOWN_ISA)
