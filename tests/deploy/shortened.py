"""The shipped rules and configurations with every time in them divided by one number; nothing else is changed.

A test cannot wait an hour for an alert. It runs the rules that are shipped, in a world that is quicker: the windows of
expressions (``[1h]``, ``[1d:1m]``, ``offset 5m``), ``for`` and the intervals of groups, and in the configurations the
intervals of scraping, evaluating, waiting and repeating. Thresholds, factors and the rest of each expression stay, and
so do the proportions of all times to each other: 20 samples in the shortest window, a short window a twelfth of its
long one. Names such as ``increase1h`` keep their letters. At 60 a minute becomes a second.

Right for expressions that hold no seconds as numbers: a test sees to it that ``rate`` is never multiplied by them.
"""

from __future__ import annotations

import re
from typing import Any, Final

_UNITS_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_KEYS: Final = frozenset(
    {
        *("interval", "for", "keep_firing_for"),  # rules
        *("scrape_interval", "evaluation_interval"),  # Prometheus
        *("group_wait", "group_interval", "repeat_interval"),  # Alertmanager
    }
)
_PART: Final = re.compile(r"(\d+)(ms|[smhdw])")
_IN_EXPRESSION: Final = re.compile(r"(?<=\[)[^\]\"]+(?=\])|(?<=\boffset )\w+")


def duration_ms(text: str) -> int:
    """Return a Prometheus duration such as ``1h30m`` in milliseconds."""
    parts = _PART.findall(text)
    if not parts or "".join(map("".join, parts)) != text:
        raise ValueError(f"{text!r} is no duration; expected numbers with ms, s, m, h, d or w")
    return sum(int(number) * _UNITS_MS[unit] for number, unit in parts)


def shorten_duration(text: str, factor: int) -> str:
    """Divide one duration; at least a millisecond is left."""
    return f"{max(1, duration_ms(text) // factor)}ms"


def shorten_expression(expression: str, factor: int) -> str:
    """Divide every window and offset of a PromQL expression."""
    return _IN_EXPRESSION.sub(
        lambda found: ":".join(shorten_duration(part, factor) for part in found[0].split(":")), expression
    )


def shortened(document: Any, factor: int) -> Any:  # noqa: ANN401 - YAML is what it is
    """Return a copy of a rule file or a configuration in which every time is divided by ``factor``."""
    if isinstance(document, list):
        return [shortened(item, factor) for item in document]
    if not isinstance(document, dict):
        return document
    return {name: _value(name, value, factor) for name, value in document.items()}


def _value(name: str, value: Any, factor: int) -> Any:  # noqa: ANN401
    if name in _KEYS:
        return shorten_duration(value, factor)
    if name == "expr":
        return shorten_expression(value, factor)
    return shortened(value, factor)
