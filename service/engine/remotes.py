"""The remote variants of one gateway: one thread with an event loop on which all their calls and probes happen.

A remote variant has lanes of its own, as many as calls may be under way to all its endpoints; their threads wait for
the answers. Whether it may be asked is told to the dispatcher whenever an endpoint goes up or down.

A model that is loaded again shares the servers of the one before where the variant is what it was, and the file says of
it what it said. Otherwise both have their own, until ``tidy`` finds that a model is served no more, and nothing of it
waits or runs. So another file is put in force by loading the models again of which it says something else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from service.domain.errors import BackendFailed
from service.engine.backends.remote import Called, connect
from service.engine.remote_variant import RemoteVariant, Server
from service.policy.endpoints import Endpoint
from service.policy.pools import pool_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from service.domain.endpoints import EndpointState, RemoteState
    from service.domain.observer import Observer
    from service.domain.remotes_file import RemotesFile
    from service.domain.remotes_file import RemoteVariant as WhereItRuns
    from service.domain.variants import ModelInfo, Variant
    from service.engine.backends.trust import Trust
    from service.engine.calls import Calls
    from service.engine.loaded import LoadedModel

_LOGGER: Final = logging.getLogger("tiergate")
_ENDS_WITHIN_S: Final = 5.0
_LOOKS_EVERY_S: Final = 0.1
_STAYS_S: Final = 1.0
"""Longer than it takes to queue a request for a model that was found just before another took its place."""


@dataclass(frozen=True, slots=True)
class _Place:
    """What the file says of a remote variant, and its certificates."""

    file: WhereItRuns
    trust: Trust | None


@dataclass(frozen=True, slots=True)
class _Watched:
    """A remote variant's place, and the task that watches its servers."""

    place: _Place
    task: asyncio.Task[None]


Certificates = Mapping[tuple[str, str], "Trust"]


class Remotes:
    """Makes the remote variants of the models that are loaded, and watches over their servers."""

    def __init__(
        self,
        file: RemotesFile,
        calls: Calls,
        observer: Observer,
        trust: Certificates = MappingProxyType({}),
    ) -> None:
        """Take what the file names; nothing is connected before ``start``.

        ``trust`` has the certificates, by model and variant.
        """
        self._named = file, trust
        self._calls = calls
        self._observer = observer
        self._models: Callable[[], Iterable[LoadedModel]] = tuple
        self._watched: dict[RemoteVariant, _Watched] = {}
        self._pools = 0
        self._leaving: set[asyncio.Task[None]] = set()
        self._running: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="remotes", daemon=True)

    def start(self, models: Callable[[], Iterable[LoadedModel]]) -> None:
        """Start the thread; ``models`` returns what is served."""
        self._models = models
        self._thread.start()

    def close(self) -> None:
        """End all calls and connections."""
        if self._thread.is_alive():
            loop, stop = self._running.result()
            loop.call_soon_threadsafe(stop.set)
            self._thread.join(_ENDS_WITHIN_S)

    @property
    def in_force(self) -> tuple[RemotesFile, Certificates]:
        """The file that models are loaded by, and its certificates."""
        return self._named

    def go_by(self, file: RemotesFile, trust: Certificates) -> frozenset[str]:
        """Load models by another file from now on; return those of which it says something else, for loading again."""
        before, self._named = self._named, (file, trust)
        models = before[0].remotes.keys() | file.remotes.keys()
        return frozenset(model for model in models if _places(model, *before) != _places(model, file, trust))

    def named(self, model: str) -> Collection[str]:
        """Return the variants of a model that the file names."""
        return self._named[0].remotes.get(model, {}).keys()

    def open(self, info: ModelInfo) -> Mapping[str, RemoteVariant]:
        """Return the remote variants of a model that is being loaded, their servers looked at once; from any thread.

        Raises:
            BackendFailed: An input or output is BF16, which cannot be sent.
        """
        named = _places(info.name, *self._named)
        found = {name: variant for name in named if (variant := info.variant(name)) is not None}
        for name in named.keys() - found.keys():
            _LOGGER.warning("remotes file: model '%s' has no published variant '%s'", info.name, name)
        if not found:
            return {}
        if any(spec.datatype == "BF16" for spec in (*info.inputs, *info.outputs)):
            raise BackendFailed("BF16 inputs and outputs cannot be sent to other servers")
        loop, _ = self._running.result()
        return asyncio.run_coroutine_threadsafe(self._open(info, found, named), loop).result()

    def tell(self, model: LoadedModel) -> None:
        """Tell a model that has just been put into service which of its remote variants can answer."""
        if model.remote:
            loop, _ = self._running.result()
            asyncio.run_coroutine_threadsafe(self._tell(model), loop).result()

    def tidy(self) -> None:
        """Let go of the servers of models that are no longer served, each when nothing waits for it any more."""
        loop, _ = self._running.result()
        with contextlib.suppress(RuntimeError):  # the loop has ended, and all connections with it
            loop.call_soon_threadsafe(self._tidy)

    def endpoints(self) -> list[EndpointState]:
        """Return how every server of the models in service stands; from any thread."""
        served = [remote for model in self._models() for remote in model.remote.values()]
        return [state for remote in list(self._watched) if remote in served for state in remote.endpoints()]

    def states(self) -> list[RemoteState]:
        """Return how every remote variant of the models in service stands; from any thread."""
        served = [remote for model in self._models() for remote in model.remote.values()]
        return [remote.state() for remote in list(self._watched) if remote in served]

    # Everything below happens on the loop.

    async def _serve(self) -> None:
        stop = asyncio.Event()
        self._running.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()

    async def _open(
        self, info: ModelInfo, variants: Mapping[str, Variant], places: Mapping[str, _Place]
    ) -> dict[str, RemoteVariant]:
        opened = {name: self._open_one(info, variant, places[name]) for name, variant in variants.items()}
        for remote in opened.values():
            await remote.was_looked_at()
        return opened

    def _open_one(self, info: ModelInfo, variant: Variant, place: _Place) -> RemoteVariant:
        for known, watched in self._watched.items():
            if watched.place == place and known.serves(
                info, variant
            ):  # the model is loaded again, and it is what it was
                return known
        file, name = place.file, pool_name(info.name, variant.name)
        called = Called(file.model or name, file.version, info)
        servers = [Server(Endpoint(address), connect(address, called, place.trust)) for address in file.endpoints]
        self._pools += 1
        remote = RemoteVariant(info, variant, servers, f"{name}#{self._pools}")
        self._calls.add_pool(remote.pool, file.calls * len(servers))
        changed = partial(self._changed, info.name, variant.name, remote)
        self._watched[remote] = _Watched(place, asyncio.create_task(remote.watch(changed)))
        return remote

    async def _tell(self, model: LoadedModel) -> None:
        for remote in self._watched:
            for name, used in model.remote.items():
                if used is remote:
                    self._set_usable(model.info.name, name, remote, [model])

    def _tidy(self) -> None:
        served = [id(remote) for model in self._models() for remote in model.remote.values()]
        for remote in [item for item in self._watched if id(item) not in served]:
            leaving = asyncio.create_task(self._leave(remote, self._watched.pop(remote).task))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def _leave(self, remote: RemoteVariant, watching: asyncio.Task[None]) -> None:
        while self._calls.depend_on(remote):  # noqa: ASYNC110 - its end has no event, and no hurry
            await asyncio.sleep(_LOOKS_EVERY_S)
        watching.cancel()
        await asyncio.wait([watching])
        await asyncio.sleep(_STAYS_S)
        self._calls.drop_pool(remote.pool)

    def _changed(self, model: str, variant: str, remote: RemoteVariant) -> None:
        served = [item for item in self._models() if item.remote.get(variant) is remote]
        if not served:
            return  # it is being loaded, and told afterwards
        self._set_usable(model, variant, remote, served)
        if not remote.up:
            self._observer.variant_failed(model, variant, remote.problem)

    def _set_usable(self, model: str, variant: str, remote: RemoteVariant, models: list[LoadedModel]) -> None:
        watched = self._watched.get(remote)
        if watched is None:
            return  # it is leaving
        up, file = remote.up, watched.place.file
        _LOGGER.info("variant %s of model %s: %d of %d endpoints up", variant, model, up, len(file.endpoints))
        self._calls.set_usable(remote.pool, up * file.calls, models, variant)


def _places(model: str, file: RemotesFile, trust: Certificates) -> dict[str, _Place]:
    """Return where the variants of a model run, by name."""
    return {name: _Place(item, trust.get((model, name))) for name, item in file.remotes.get(model, {}).items()}
