"""Weights in memory: one copy of each, shared by every variant that has the same file, options and interface."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.engine.opening import verify, warm_up

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterator

    from service.engine.backends.backend import Backend
    from service.engine.opening import OpenVariant, Source
    from service.engine.repository import StoredFile


@dataclass(frozen=True, slots=True)
class Opened:
    """A variant that is loaded and warm; ``ratio`` is its time here over its profile's median."""

    backend: Backend
    file: StoredFile
    ratio: float


@dataclass(slots=True, eq=False)
class _Copy:
    """One copy and the variants that answer with it."""

    backend: Backend
    size_bytes: int
    users: set[Source] = field(default_factory=set)


class Copies:
    """The copies by their weights; who changes them from several threads guards them."""

    def __init__(self, open_variant: OpenVariant) -> None:
        """Start with none; ``open_variant`` makes a variant's backend."""
        self._open_variant = open_variant
        self._copies: dict[Hashable, _Copy] = {}

    @property
    def size_bytes(self) -> int:
        """The bytes of all copies, by the manifests."""
        return sum(copy.size_bytes for copy in list(self._copies.values()))

    def __contains__(self, weights: Hashable) -> bool:
        return weights in self._copies

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._copies)

    def __len__(self) -> int:
        return len(self._copies)

    def open(self, source: Source, runs: int) -> Opened:
        """Load a variant, or share the copy of its weights, and warm it up with so many runs.

        Raises:
            BackendFailed: Its file is not what the manifest says, or the runtime refuses it.
        """
        copy = self._copies.get(source.weights)
        if copy is None:
            backend, file = self._open_variant(source.stored, source.info, source.manifest)
            copy = _Copy(backend, source.variant.memory_bytes)
        else:
            file = verify(source)
        ratio = warm_up(copy.backend, source, runs)
        copy.users.add(source)
        self._copies[source.weights] = copy
        give_back()
        return Opened(copy.backend, file, ratio)

    def users(self, weights: Hashable) -> frozenset[Source]:
        """Return the variants that answer with a copy, none where there is no copy."""
        copy = self._copies.get(weights)
        return frozenset() if copy is None else frozenset(copy.users)

    def size_of(self, source: Source) -> int:
        """Return the bytes of the copy that a variant uses."""
        return self._copies[source.weights].size_bytes

    def leave(self, sources: Collection[Source]) -> None:
        """Let variants use their copies no more; a copy without users goes."""
        for source in sources:
            copy = self._copies.get(source.weights)
            if copy is not None:
                copy.users.discard(source)
                if not copy.users:
                    del self._copies[source.weights]
        give_back()

    def drop(self, weights: Hashable) -> None:
        """Let a copy go, whoever used it."""
        del self._copies[weights]
        give_back()


def give_back() -> None:
    """Give freed memory back to the system: loading frees several times a file's size, which glibc would keep."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own; musl has none and keeps less
    if trim is not None:
        trim(0)
