"""The story of an answer as the wire tells it: response parameters, headers, ``Server-Timing``.

The same names everywhere: ``variant`` as a parameter, ``x-tiergate-variant`` as an HTTP header or as gRPC trailing
metadata.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from service.domain.inference import Answer

HEADER_PREFIX: Final = "x-tiergate-"

Parameter = str | float | bool


def answer_parameters(answer: Answer) -> dict[str, Parameter]:
    """Return the response-level parameters; never put them on an output, where Triton's C++ client breaks on them."""
    return {
        "variant": answer.variant,
        "tier": answer.tier,
        "reason": answer.reason.value,
        "predicted_ms": round(answer.predicted_s * 1e3, 3),
        "queue_ms": round(answer.queue_s * 1e3, 3),
        "compute_ms": round(answer.compute_s * 1e3, 3),
        "total_ms": round(answer.total_s * 1e3, 3),
        "budget_met": answer.budget_met,
        "expected_accuracy": round(answer.expected_accuracy, 6),
    }


def answer_texts(parameters: dict[str, Parameter]) -> list[tuple[str, str]]:
    """Return the parameters as header or metadata pairs."""
    return [(HEADER_PREFIX + name.replace("_", "-"), text(value)) for name, value in parameters.items()]


def text(value: Parameter) -> str:
    """Return a parameter's value as text; booleans as JSON writes them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def server_timing(answer: Answer) -> str:
    """Return the ``Server-Timing`` header; durations in milliseconds."""
    return (
        f"queue;dur={answer.queue_s * 1e3:.3f}, "
        f"compute;dur={answer.compute_s * 1e3:.3f}, "
        f"total;dur={answer.total_s * 1e3:.3f}"
    )
