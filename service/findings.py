"""What a check of ``tiergate doctor`` says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; ``advice`` is what to do, '' where there is nothing."""

    check: str
    level: Level
    found: str
    advice: str = ""
