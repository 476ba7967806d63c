"""A policy as it was written, and what replacing one by another changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.domain.policy_file import PolicyFile


@dataclass(frozen=True, slots=True)
class PolicyText:
    """A valid policy, the YAML (or JSON) that it was read from, and the sha256 of these bytes in hexadecimal."""

    policy: PolicyFile
    content: bytes
    digest: str


@dataclass(frozen=True, slots=True)
class Replacement:
    """A policy was put in force: its digest, what is different now, and whether it outlives the process."""

    digest: str
    changes: tuple[str, ...]
    is_kept_in_file: bool
