"""Answering scrapes on the event loop without holding requests up.

Writing the exposition of one model with six variants takes some 7 ms, which is longer than many budgets. So it is
written family by family, and whenever that has taken half a millisecond other work has its turn. Scrapes are written
one at a time: who asks while one is being written gets, with all others who wait, the one that is begun next. However
many ask, the loop spends one family's time of a turn on them.

The families of one scrape are of moments that lie a few milliseconds apart.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    Encode = Callable[[Collector], bytes]

_LONGEST_S: Final = 0.0005
_END: Final = b"# EOF\n"
"""What ends an exposition in OpenMetrics."""


class Scraping:
    """Answers the scrapes of one registry, on one event loop; ``clock`` gives seconds."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.perf_counter) -> None:
        """Keep what is scraped."""
        self._registry = registry
        self._clock = clock
        self._writing = asyncio.Lock()
        self._begun = 0
        self._last: tuple[int, str, bytes] = (0, "", b"")

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Return the exposition for an Accept header, of now or a little later, and its content type."""
        encode, content_type = _choose(accept)
        needed = self._begun + 1  # one that is being written may have passed what the caller has just done
        async with self._writing:
            number, kind, body = self._last
            if number < needed or kind != content_type:
                self._begun += 1
                number, body = self._begun, await self._write(encode)
                self._last = number, content_type, body
        return body, content_type

    async def _write(self, encode: Encode) -> bytes:
        parts, began_s = [], self._clock()
        for family in self._registry.collect():
            parts.append(encode(_Family(family)).removesuffix(_END))
            if self._clock() - began_s >= _LONGEST_S:
                await asyncio.sleep(0)
                began_s = self._clock()
        return b"".join(parts) + encode(_Family())


def _choose(accept: str) -> tuple[Encode, str]:
    try:
        return choose_encoder(accept)
    except TypeError:  # the library compares the version that is asked for with numbers, whatever it is
        return choose_encoder("")


class _Family(Collector):
    """Families that were read already, if any."""

    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
