"""The story of an answer as the wire tells it: response parameters, headers, ``Server-Timing``.

The same names everywhere: ``variant`` as a parameter, ``x-tiergate-variant`` as an HTTP header or as gRPC trailing
metadata. It is told with every answer, so each number becomes text once, and what is the same for every answer of a
variant is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.domain.inference import Answer, Reason

HEADER_PREFIX: Final = "x-tiergate-"

TIMES: Final = ("predicted_ms", "predicted_p99_ms", "queue_ms", "compute_ms", "total_ms")
"""The parameters that every answer has its own of, in milliseconds."""
_FORMAT: Final = " ".join(["%.3f"] * len(TIMES))
_encode_json: Final = msgspec.json.Encoder().encode


class Parameter(NamedTuple):
    """A response parameter: its name, its text, and whether it is a word, a number or a boolean."""

    name: str
    text: str
    kind: type


@dataclass(frozen=True, slots=True, eq=False)
class Fixed:
    """What an answer has in common with many: as parameters, and as pairs of gRPC trailing metadata.

    It is the same object for all of them, and so its own key where something is kept for it.
    """

    parameters: tuple[Parameter, ...]
    metadata: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class _Kept:
    """What all answers of one variant for one reason have in common, up to where the numbers go."""

    accuracy: Parameter
    json: str
    head: str
    met: tuple[Fixed, Fixed]
    """Of answers that missed their budget, and of those that met it."""


class Story:
    """One answer's parameters, in the forms that the wire wants."""

    __slots__ = ("_answer", "_kept", "_times")

    def __init__(self, answer: Answer) -> None:
        """Make the numbers into text."""
        self._answer = answer
        self._kept = _kept(answer.variant, answer.tier, answer.reason, answer.expected_accuracy)
        times_s = (answer.predicted_s, answer.claimed_s, answer.queue_s, answer.compute_s, answer.total_s)
        self._times = _FORMAT % tuple([time_s * 1e3 for time_s in times_s])

    def json(self) -> str:
        """Return the response-level parameters as a JSON object; on an output Triton's C++ client breaks on them."""
        predicted, claimed, queue, compute, total = self._times.split()
        return (
            f'{self._kept.json},"predicted_ms":{predicted},"predicted_p99_ms":{claimed},"queue_ms":{queue},"compute_ms":{compute},'
            f'"total_ms":{total},"budget_met":{self._met()},"expected_accuracy":{self._kept.accuracy.text}}}'
        )

    def head(self) -> bytes:
        """Return the parameters and ``Server-Timing`` as header lines, each with its line end."""
        predicted, claimed, queue, compute, total = self._times.split()
        return (
            f"{self._kept.head}x-tiergate-predicted-ms: {predicted}\r\nx-tiergate-predicted-p99-ms: {claimed}\r\n"
            f"x-tiergate-queue-ms: {queue}\r\nx-tiergate-compute-ms: {compute}\r\n"
            f"x-tiergate-total-ms: {total}\r\n"
            f"x-tiergate-budget-met: {self._met()}\r\n"
            f"server-timing: queue;dur={queue}, compute;dur={compute}, total;dur={total}\r\n"
        ).encode("latin-1", "replace")

    def fixed(self) -> Fixed:
        """Return all but the numbers that every answer has its own of."""
        return self._kept.met[self._answer.budget_met]

    def numbers(self) -> list[tuple[str, bytes]]:
        """Return the parameters that are not ``fixed``: names and texts."""
        return list(zip(TIMES, self._times.encode().split(), strict=True))

    def _met(self) -> str:
        return "true" if self._answer.budget_met else "false"


def metadata_of(numbers: Iterable[tuple[str, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return a story's numbers as pairs of gRPC trailing metadata."""
    return [(_HEADERS[name], text) for name, text in numbers]


@lru_cache(maxsize=1024)
def _kept(variant: str, tier: str, reason: Reason, accuracy: float) -> _Kept:
    words = (Parameter("variant", variant, str), Parameter("tier", tier, str), Parameter("reason", reason.value, str))
    share = Parameter("expected_accuracy", str(round(accuracy, 6)), float)
    head = "".join(f"{_header(item.name)}: {_one_line(item.text)}\r\n" for item in (*words, share))
    json = _encode_json({item.name: item.text for item in words}).decode()[:-1]
    return _Kept(share, json, head, (_fixed(words, share, "false"), _fixed(words, share, "true")))


def _fixed(words: tuple[Parameter, ...], share: Parameter, met: str) -> Fixed:
    parameters = (*words, Parameter("budget_met", met, bool), share)
    return Fixed(parameters, tuple([(_header(item.name).encode(), item.text.encode()) for item in parameters]))


@lru_cache(maxsize=64)
def _header(name: str) -> str:
    return HEADER_PREFIX + name.replace("_", "-")


_HEADERS: Final = {name: _header(name).encode() for name in TIMES}


def _one_line(text: str) -> str:
    """Return a text that cannot end its header."""
    return "".join(character if character.isprintable() else "?" for character in text)
