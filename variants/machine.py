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


def safe_isa(isa: tuple[str, ...], *, is_int8: bool, fits_int16_pairs: bool) -> tuple[str, ...]:
    """Return where a variant's outputs are verified, given that they were checked on a machine with ``isa``.

    Float files compute the same everywhere, so all of ``isa`` counts. An int8 file was verified only on the int8
    path that this machine takes (the first of ``INT8_PATHS`` that it has); the paths that add pairs of products in
    16 bits are added when the file is proven never to leave them.
    """
    if not is_int8:
        return isa
    taken = [path for path in INT8_PATHS if path in isa][:1]
    proven = [path for path in SATURATING_PATHS if fits_int16_pairs and "avx2" in isa and path not in taken]
    return (*taken, *proven)


def _cpuinfo(field: str) -> str:
    """Return the first value of a field of ``/proc/cpuinfo``, or nothing."""
    if not CPUINFO.exists():
        return ""
    for line in CPUINFO.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""
