"""The remote variants of one gateway: one thread with an event loop on which all their calls and probes happen.

A remote variant has lanes of its own, as many as calls may be under way to all its endpoints; their threads wait for
the answers. Whether it may be asked is told to the dispatcher whenever an endpoint goes up or down.

A model that is loaded again shares the servers of the one before where the variant is what it was. Otherwise both have
their own, until ``tidy`` finds that a model is served no more, and nothing of it waits or runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from concurrent.futures import Future
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from service.domain.errors import BackendFailed
from service.engine.backends.remote import Called, connect
from service.engine.remote_variant import RemoteVariant, Server
from service.policy.endpoints import Endpoint
from service.policy.pools import pool_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from service.domain.endpoints import EndpointState
    from service.domain.observer import Observer
    from service.domain.remotes_file import RemotesFile
    from service.domain.variants import ModelInfo, Variant
    from service.engine.backends.trust import Trust
    from service.engine.calls import Calls
    from service.engine.loaded import LoadedModel

_LOGGER: Final = logging.getLogger("tiergate")
_ENDS_WITHIN_S: Final = 5.0
_LOOKS_EVERY_S: Final = 0.1


class Remotes:
    """Makes the remote variants of the models that are loaded, and watches over their servers."""

    def __init__(
        self,
        file: RemotesFile,
        calls: Calls,
        observer: Observer,
        trust: Mapping[tuple[str, str], Trust] = MappingProxyType({}),
    ) -> None:
        """Add lanes for what the file names; nothing is connected before ``start``.

        ``trust`` has the certificates, by model and variant.
        """
        self._file = file
        self._trust = trust
        self._calls = calls
        self._observer = observer
        self._models: Callable[[], Iterable[LoadedModel]] = tuple
        self._watched: dict[RemoteVariant, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._running: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="remotes", daemon=True)
        for model, variants in file.remotes.items():
            for variant, remote in variants.items():
                calls.add_pool(pool_name(model, variant), remote.calls * len(remote.endpoints))

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

    def named(self, model: str) -> Collection[str]:
        """Return the variants of a model that the file names."""
        return self._file.remotes.get(model, {}).keys()

    def open(self, info: ModelInfo) -> Mapping[str, RemoteVariant]:
        """Return the remote variants of a model that is being loaded, their servers looked at once; from any thread.

        Raises:
            BackendFailed: An input or output is BF16, which cannot be sent.
        """
        named = self._file.remotes.get(info.name, {})
        found = {name: variant for name in named if (variant := info.variant(name)) is not None}
        for name in named.keys() - found.keys():
            _LOGGER.warning("remotes file: model '%s' has no published variant '%s'", info.name, name)
        if not found:
            return {}
        if any(spec.datatype == "BF16" for spec in (*info.inputs, *info.outputs)):
            raise BackendFailed("BF16 inputs and outputs cannot be sent to other servers")
        loop, _ = self._running.result()
        return asyncio.run_coroutine_threadsafe(self._open(info, found), loop).result()

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

    def retries(self) -> Mapping[tuple[str, str], int]:
        """Return how many calls were repeated, by model and variant; from any thread."""
        served = [(model.info.name, name, remote) for model in self._models() for name, remote in model.remote.items()]
        watched = list(self._watched)
        return {(model, name): item.retries for model, name, remote in served for item in watched if item is remote}

    # Everything below happens on the loop.

    async def _serve(self) -> None:
        stop = asyncio.Event()
        self._running.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()

    async def _open(self, info: ModelInfo, variants: Mapping[str, Variant]) -> dict[str, RemoteVariant]:
        opened = {name: self._open_one(info, variant) for name, variant in variants.items()}
        for remote in opened.values():
            await remote.was_looked_at()
        return opened

    def _open_one(self, info: ModelInfo, variant: Variant) -> RemoteVariant:
        for known in self._watched:
            if known.serves(info, variant):  # the model is loaded again, and it is what it was
                return known
        file = self._file.remotes[info.name][variant.name]
        called = Called(file.model or pool_name(info.name, variant.name), file.version, info)
        trust = self._trust.get((info.name, variant.name))
        servers = [Server(Endpoint(address), connect(address, called, trust)) for address in file.endpoints]
        remote = RemoteVariant(info, variant, servers)
        changed = partial(self._changed, info.name, variant.name, remote)
        self._watched[remote] = asyncio.create_task(remote.watch(changed))
        return remote

    async def _tell(self, model: LoadedModel) -> None:
        for remote in self._watched:
            for name, used in model.remote.items():
                if used is remote:
                    self._set_usable(model.info.name, name, remote.up, [model])

    def _tidy(self) -> None:
        served = [id(remote) for model in self._models() for remote in model.remote.values()]
        for remote in [item for item in self._watched if id(item) not in served]:
            leaving = asyncio.create_task(self._leave(remote, self._watched.pop(remote)))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def _leave(self, remote: RemoteVariant, watching: asyncio.Task[None]) -> None:
        while self._calls.depend_on(remote):  # noqa: ASYNC110 - its end has no event, and no hurry
            await asyncio.sleep(_LOOKS_EVERY_S)
        watching.cancel()
        await asyncio.wait([watching])

    def _changed(self, model: str, variant: str, remote: RemoteVariant) -> None:
        served = [item for item in self._models() if item.remote.get(variant) is remote]
        if not served:
            return  # it is being loaded, and told afterwards
        self._set_usable(model, variant, remote.up, served)
        if not remote.up:
            self._observer.variant_failed(model, variant, remote.problem)

    def _set_usable(self, model: str, variant: str, up: int, models: list[LoadedModel]) -> None:
        file = self._file.remotes[model][variant]
        _LOGGER.info("variant %s of model %s: %d of %d endpoints up", variant, model, up, len(file.endpoints))
        usable = up * file.calls
        self._calls.set_usable(pool_name(model, variant), usable, models, variant)
