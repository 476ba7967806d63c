"""A traced request's way through a codec: what every wire form does around its own decoding and encoding."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.domain.trace import Trace

TRACE_HEADERS: Final = ("traceparent", "tracestate")
"""What a caller says of its own span, as W3C Trace Context has it."""

RESPONSE_HEADER: Final = "traceresponse"


@contextmanager
def ending(trace: Trace) -> Iterator[None]:
    """End a trace with the block, and with the error that leaves it."""
    try:
        yield
    except BaseException as error:
        trace.end(error)
        raise
    trace.end()
