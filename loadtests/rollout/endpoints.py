"""The list of endpoints, and how late each client learns of a change.

In a cluster a pod that ends or becomes ready is first written down by its kubelet, then put into an EndpointSlice, then
into the rules of every node, each in its own time. Here each viewer draws for every change how late it sees it, and
sees changes in their order, because what it gets are versions of one list.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random


@dataclass(slots=True)
class Viewer:
    """One node's rules: addresses that it sends to, and changes that it has yet to see."""

    addresses: set[str] = field(default_factory=set)
    coming: list[tuple[float, str, bool]] = field(default_factory=list)

    def look(self, now_s: float) -> list[str]:
        """Return the addresses as this viewer sees them now, in order."""
        due = [item for item in self.coming if item[0] <= now_s]
        if due:
            self.coming = [item for item in self.coming if item[0] > now_s]
            for _, address, is_there in due:
                (self.addresses.add if is_there else self.addresses.discard)(address)
        return sorted(self.addresses)


class Endpoints:
    """What is true, and what ``viewers`` viewers believe, each up to ``lag_s`` seconds later."""

    def __init__(self, viewers: int, lag_s: float, rng: Random) -> None:
        """Start with nobody there."""
        self.viewers = [Viewer() for _ in range(viewers)]
        self._lag_s = lag_s
        self._rng = rng

    def begin(self, address: str) -> None:
        """Have an address known to all from the start."""
        for viewer in self.viewers:
            viewer.addresses.add(address)

    def change(self, now_s: float, address: str, *, is_there: bool) -> None:
        """Tell everyone, in their time, that an address came or went."""
        for viewer in self.viewers:
            before_s = viewer.coming[-1][0] if viewer.coming else now_s
            seen_s = max(before_s, now_s + self._rng.uniform(0.0, self._lag_s))
            viewer.coming.append((seen_s, address, is_there))
