"""What machine this is, and which instruction sets its processor has."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Final

import psutil

from variants.manifest import Machine

CPUINFO: Final = Path("/proc/cpuinfo")
KNOWN_ISA: Final = (
    "avx2", "fma", "avx512f", "avx512bw", "avx512_bf16", "avx_vnni", "avx512_vnni", "amx_int8", "amx_bf16",
    "asimd", "asimddp", "i8mm", "sve",
)  # fmt: skip
INT8_PATHS: Final = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "i8mm", "asimddp", "asimd")
SATURATING_PATHS: Final = ("avx2", "avx512f")
FLOAT_PATHS: Final = ("avx512f", "avx2", "asimd")


def describe_machine() -> Machine:
    """Return this machine's processor, cores that this process may use, memory and system."""
    return Machine(
        cpu=_cpuinfo("model name") or platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.machine()}",
        isa=detect_isa(),
    )


def detect_isa() -> tuple[str, ...]:
    """Return the instruction sets of this processor that matter to inference, in ``KNOWN_ISA``'s order."""
    flags = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return tuple(name for name in KNOWN_ISA if name in flags)


def verified_isa(isa: tuple[str, ...], *, is_int8: bool) -> tuple[str, ...]:
    """Return the one path that a machine with ``isa`` executes: the best that it has for this arithmetic.

    Other instruction sets of the machine were not executed, so nothing was verified there.
    """
    paths = INT8_PATHS if is_int8 else FLOAT_PATHS
    return tuple(path for path in paths if path in isa)[:1]


def proven_isa(*, fits_int16_pairs: bool) -> tuple[str, ...]:
    """Return the paths that would saturate, had arithmetic not excluded it; this holds whatever machine builds.

    Float files have none and need none: every instruction set rounds a float32 product alike and differs only in
    the order of sums, about 1e-6 of the output.
    """
    return SATURATING_PATHS if fits_int16_pairs else ()


def _cpuinfo(field: str) -> str:
    """Return the first value of a field of ``/proc/cpuinfo``, or nothing."""
    if not CPUINFO.exists():
        return ""
    for line in CPUINFO.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""
