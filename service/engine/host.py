"""What this host offers a gateway: instruction sets, cores, memory, open files; as the kernel and its cgroups say."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from variants.machine import detect_isa

_V2_CPU: Final = "cpu.max"
_V2_MEMORY: Final = "memory.max"
_ABSURD_BYTES: Final = 2**60
"""cgroup v1 writes a number near 2**63 where there is no limit."""


@dataclass(frozen=True, slots=True)
class Host:
    """One host, as this process may use it.

    ``quota_cores`` is the CPU time that its cgroup may use each second, ``memory_limit_bytes`` the cgroup's limit;
    ``None`` where there is none. ``open_files`` is the soft limit.
    """

    processor: str
    isa: tuple[str, ...]
    cores: int
    quota_cores: float | None
    memory_bytes: int
    memory_limit_bytes: int | None
    open_files: int

    @property
    def usable_cores(self) -> float:
        """The cores' worth of time that this process gets at most."""
        return self.cores if self.quota_cores is None else min(float(self.cores), self.quota_cores)

    @property
    def usable_bytes(self) -> int:
        """The memory that this process may take at most."""
        return min(self.memory_bytes, self.memory_limit_bytes or self.memory_bytes)


def examine_host(root: Path = Path("/")) -> Host:
    """Return what this host is; cgroups are looked for under ``root``."""
    return Host(
        processor=os.uname().machine,
        isa=detect_isa(),
        cores=len(os.sched_getaffinity(0)),
        quota_cores=read_quota_cores(root),
        memory_bytes=int(psutil.virtual_memory().total),
        memory_limit_bytes=read_memory_limit(root),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def read_quota_cores(root: Path) -> float | None:
    """Return the least CPU quota of this process's cgroup and those above it, in cores, ``None`` without one."""
    found = [_quota(*text.split()[:2]) for text in _texts(root, "", _V2_CPU) if len(text.split()) > 1]
    for quota, period in zip(
        _texts(root, "cpu", "cpu.cfs_quota_us"), _texts(root, "cpu", "cpu.cfs_period_us"), strict=False
    ):
        found.append(_quota(quota.strip(), period.strip()))
    return min((item for item in found if item is not None), default=None)


def read_memory_limit(root: Path) -> int | None:
    """Return the least memory limit of this process's cgroup and those above it, ``None`` without one."""
    texts = [*_texts(root, "", _V2_MEMORY), *_texts(root, "memory", "memory.limit_in_bytes")]
    found = [int(text) for text in map(str.strip, texts) if text.isdecimal()]
    return min((item for item in found if item < _ABSURD_BYTES), default=None)


def _quota(quota: str, period: str) -> float | None:
    is_limited = quota.isdecimal() and period.isdecimal() and int(period) > 0
    return int(quota) / int(period) if is_limited else None


def _texts(root: Path, controller: str, name: str) -> list[str]:
    """Return what a file says in this process's cgroup and in all above it; in a container's namespace that is /."""
    mounted = root / "sys/fs/cgroup" / controller
    folders = [mounted, *(mounted / part for part in _own_paths(root, controller))]
    texts = []
    for folder in dict.fromkeys(folders):
        try:
            texts.append((folder / name).read_text(encoding="utf-8"))
        except OSError:
            continue  # the root of the hierarchy has no limits, and a container does not see what is above it
    return texts


def _own_paths(root: Path, controller: str) -> list[str]:
    """Return the process's cgroup of a controller ('' for the second version) and those above it, as relative paths."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            parts = path.strip("/").split("/")
            return ["/".join(parts[:count]) for count in range(1, len(parts) + 1) if parts[0] and ".." not in parts]
    return []
