"""What a request asks of routing: parameters, headers and deadlines become ``Knobs``.

A parameter wins over a header. A gRPC deadline wins over the parameter ``timeout``, which wins over the header
``x-request-timeout-ms``. Numbers may come as numbers or as text. Names that are no knob are ignored, because clients
send their own (``binary_data_output``, ``sequence_id``); a knob whose value makes no sense is an error that names it,
even where another one wins over it. ``null`` means not said.

Budget and timeouts count from the moment at which the request has been read and decoded, as ``total_ms`` in the answer
does: how long its bytes were under way is not known here. Only a gRPC deadline counts from the start of the call.

``priority`` is Triton's: 0 means the default (normal), 1 is the highest (critical), 2 is normal, and 3 and above are
sheddable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from service.api.hardware import HINT_HEADERS, decode_hardware, decode_hints
from service.api.names import NAME, NAME_RULE, shown
from service.domain.errors import InvalidRequest
from service.domain.inference import NO_KNOBS, Criticality, Knobs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.domain.inference import ClientHardware

PARAMETERS: Final = frozenset(
    {"latency_budget_ms", "timeout", "min_accuracy", "variant", "tier", "client_hardware", "priority"}
)
"""Request parameters that are knobs."""

HEADERS: Final = HINT_HEADERS | {
    "x-latency-budget-ms",
    "x-request-timeout-ms",
    "x-client-hardware",
    "x-criticality",
}
"""Lower-case HTTP headers, or gRPC metadata keys, that are knobs."""

MAX_TIMEOUT_S: Final = 3600.0
"""Nothing waits longer than an hour for one answer."""

_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,32}(\.[0-9]{0,32})?([eE][+-]?[0-9]{1,4})?", re.ASCII)
_CRITICALITIES: Final = {level.name.lower(): level for level in Criticality}


@dataclass(frozen=True, slots=True)
class _Number:
    """The numbers that a knob takes, both ends included unless ``above_low``."""

    low: int
    high: int
    above_low: bool = False
    whole: bool = False

    def read(self, name: str, value: object) -> float:
        """Return the value, or raise ``InvalidRequest`` with the knob's name and the allowed range."""
        number = _to_number(value)
        if number is None or not self._allows(number):
            message = f"knob '{name}' is {shown(value)}; allowed is {self._rule()}"
            raise InvalidRequest(message)
        return number

    def _allows(self, number: float) -> bool:
        inside = self.low < number if self.above_low else self.low <= number
        return inside and number <= float(self.high) and (not self.whole or number.is_integer())

    def _rule(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low = f"above {self.low} and at most" if self.above_low else f"from {self.low} to"
        return f"{kind} {low} {self.high}"


_MILLISECONDS: Final = _Number(0, 3_600_000, above_low=True)
_MICROSECONDS: Final = _Number(0, 3_600_000_000, whole=True)
_RATIO: Final = _Number(0, 1)
_PRIORITY: Final = _Number(0, 2**64 - 1, whole=True)


def decode_knobs(
    parameters: Mapping[str, object],
    headers: Mapping[str, str],
    *,
    pinned: str | None = None,
    deadline_s: float | None = None,
) -> Knobs:
    """Read the knobs of one request.

    Args:
        parameters: The request's parameters.
        headers: Lower-case HTTP headers or gRPC metadata.
        pinned: The variant that the model's name pins (``model--variant``).
        deadline_s: Seconds left until the gRPC deadline.

    Raises:
        InvalidRequest: A knob is malformed or out of range, or two knobs contradict each other.
    """
    if pinned is None and deadline_s is None and parameters.keys().isdisjoint(PARAMETERS):
        if not headers or headers.keys().isdisjoint(HEADERS):
            return NO_KNOBS
        parameters = {}
    elif deadline_s is None and not headers and (not parameters or parameters.keys().isdisjoint(PARAMETERS)):
        return _pinned_alone(pinned)
    return Knobs(
        budget_s=_budget_s(parameters, headers),
        timeout_s=_timeout_s(parameters, headers, deadline_s),
        min_accuracy=_min_accuracy(parameters),
        variant=_variant(parameters, pinned),
        tier=_name(parameters, "tier"),
        hardware=_hardware(parameters, headers),
        criticality=_criticality(parameters, headers),
    )


@lru_cache(maxsize=1024)
def _pinned_alone(variant: str | None) -> Knobs:
    return Knobs(variant=variant)


def _budget_s(parameters: Mapping[str, object], headers: Mapping[str, str]) -> float | None:
    asked = _milliseconds(parameters, "latency_budget_ms")
    header = _milliseconds(headers, "x-latency-budget-ms")
    return header if asked is None else asked


def _timeout_s(parameters: Mapping[str, object], headers: Mapping[str, str], deadline_s: float | None) -> float | None:
    asked = parameters.get("timeout")
    timeout_us = 0.0 if asked is None else _MICROSECONDS.read("timeout", asked)
    header = _milliseconds(headers, "x-request-timeout-ms")
    if deadline_s is not None:
        return min(max(deadline_s, 0.0), MAX_TIMEOUT_S)
    if timeout_us:  # 0 is how some Triton clients say "not set"
        return timeout_us / 1e6
    return header


def _milliseconds(source: Mapping[str, object], name: str) -> float | None:
    """Return a knob in milliseconds as seconds, ``None`` where it is not said."""
    value = source.get(name)
    return None if value is None else _MILLISECONDS.read(name, value) / 1e3


def _min_accuracy(parameters: Mapping[str, object]) -> float | None:
    value = parameters.get("min_accuracy")
    return None if value is None else _RATIO.read("min_accuracy", value)


def _variant(parameters: Mapping[str, object], pinned: str | None) -> str | None:
    asked = _name(parameters, "variant")
    if asked is not None and pinned is not None and asked != pinned:
        message = f"knob 'variant' is '{asked}', but the model's name pins '{pinned}'; give one of them"
        raise InvalidRequest(message)
    return asked or pinned


def _name(parameters: Mapping[str, object], knob: str) -> str | None:
    value = parameters.get(knob)
    if value is None:
        return None
    if not isinstance(value, str) or NAME.fullmatch(value) is None:
        message = f"knob '{knob}' is {shown(value)}; allowed is {NAME_RULE}"
        raise InvalidRequest(message)
    return value


def _hardware(parameters: Mapping[str, object], headers: Mapping[str, str]) -> ClientHardware | None:
    header = headers.get("x-client-hardware")
    said = None if header is None else decode_hardware(header)
    asked = parameters.get("client_hardware")
    if asked is not None:
        return decode_hardware(asked)
    if said is None and headers:
        return decode_hints(headers)
    return said


def _criticality(parameters: Mapping[str, object], headers: Mapping[str, str]) -> Criticality:
    priority = parameters.get("priority")
    level = 0.0 if priority is None else _PRIORITY.read("priority", priority)
    word = headers.get("x-criticality", "normal").lower()
    if word not in _CRITICALITIES:
        message = f"knob 'x-criticality' is {shown(word)}; allowed are {', '.join(_CRITICALITIES)}"
        raise InvalidRequest(message)
    return Criticality(min(int(level) - 1, Criticality.SHEDDABLE)) if level else _CRITICALITIES[word]


def _to_number(value: object) -> float | None:
    """Return a number or a number's text as a float; a boolean is neither."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and _NUMBER.fullmatch(value) is None:
        return None
    try:
        return float(value) if isinstance(value, int | float | str) else None
    except OverflowError:
        return None
