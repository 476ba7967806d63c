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
    from service.domain.inference import Answer, Reason

HEADER_PREFIX: Final = "x-tiergate-"

_TIMES: Final = ("predicted_ms", "predicted_p99_ms", "queue_ms", "compute_ms", "total_ms")
_encode_json: Final = msgspec.json.Encoder().encode


class Parameter(NamedTuple):
    """A response parameter: its name, its text, and whether it is a word, a number or a boolean."""

    name: str
    text: str
    kind: type


@dataclass(frozen=True, slots=True)
class _Kept:
    """What all answers of one variant for one reason have in common, up to where the numbers go."""

    words: tuple[Parameter, ...]
    accuracy: Parameter
    json: str
    head: str


class Story:
    """One answer's parameters, in the forms that the wire wants."""

    __slots__ = ("_answer", "_kept", "_met", "_times")

    def __init__(self, answer: Answer) -> None:
        """Make the numbers into text."""
        self._answer = answer
        self._kept = _kept(answer.variant, answer.tier, answer.reason, answer.expected_accuracy)
        self._met = "true" if answer.budget_met else "false"
        self._times = (
            str(round(answer.predicted_s * 1e3, 3)),
            str(round(answer.claimed_s * 1e3, 3)),
            str(round(answer.queue_s * 1e3, 3)),
            str(round(answer.compute_s * 1e3, 3)),
            str(round(answer.total_s * 1e3, 3)),
        )

    def json(self) -> str:
        """Return the response-level parameters as a JSON object; on an output Triton's C++ client breaks on them."""
        predicted, claimed, queue, compute, total = self._times
        return (
            f'{self._kept.json},"predicted_ms":{predicted},"predicted_p99_ms":{claimed},"queue_ms":{queue},"compute_ms":{compute},'
            f'"total_ms":{total},"budget_met":{self._met},"expected_accuracy":{self._kept.accuracy.text}}}'
        )

    def head(self) -> bytes:
        """Return the parameters and ``Server-Timing`` as header lines, each with its line end."""
        predicted, claimed, queue, compute, total = self._times
        answer = self._answer
        return (
            f"{self._kept.head}x-tiergate-predicted-ms: {predicted}\r\nx-tiergate-predicted-p99-ms: {claimed}\r\n"
            f"x-tiergate-queue-ms: {queue}\r\nx-tiergate-compute-ms: {compute}\r\n"
            f"x-tiergate-total-ms: {total}\r\n"
            f"x-tiergate-budget-met: {self._met}\r\n"
            f"server-timing: queue;dur={answer.queue_s * 1e3:.3f}, compute;dur={answer.compute_s * 1e3:.3f}, "
            f"total;dur={answer.total_s * 1e3:.3f}\r\n"
        ).encode("latin-1", "replace")

    def parameters(self) -> tuple[Parameter, ...]:
        """Return the parameters one by one."""
        times = [Parameter(name, text, float) for name, text in zip(_TIMES, self._times, strict=True)]
        return (*self._kept.words, *times, Parameter("budget_met", self._met, bool), self._kept.accuracy)

    def metadata(self) -> list[tuple[str, str]]:
        """Return the parameters as pairs of gRPC trailing metadata."""
        return [(_header(item.name), item.text) for item in self.parameters()]


@lru_cache(maxsize=1024)
def _kept(variant: str, tier: str, reason: Reason, accuracy: float) -> _Kept:
    words = (Parameter("variant", variant, str), Parameter("tier", tier, str), Parameter("reason", reason.value, str))
    share = Parameter("expected_accuracy", str(round(accuracy, 6)), float)
    head = "".join(f"{_header(item.name)}: {_one_line(item.text)}\r\n" for item in (*words, share))
    return _Kept(words, share, _encode_json({item.name: item.text for item in words}).decode()[:-1], head)


@lru_cache(maxsize=64)
def _header(name: str) -> str:
    return HEADER_PREFIX + name.replace("_", "-")


def _one_line(text: str) -> str:
    """Return a text that cannot end its header."""
    return "".join(character if character.isprintable() else "?" for character in text)
