"""The remote variants of one gateway: one thread with an event loop on which all their calls and probes happen.

A remote variant has lanes of its own, as many as calls may be under way to all its endpoints; their threads wait for
the answers. Whether it may be asked is told to the dispatcher whenever an endpoint goes up or down.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from service.domain.errors import BackendFailed
from service.engine.backends.remote import Called, connect
from service.engine.remote_variant import RemoteVariant, Server
from service.policy.endpoints import Endpoint
from service.policy.pools import pool_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from service.domain.observer import Observer
    from service.domain.remotes_file import RemotesFile
    from service.domain.variants import ModelInfo, Variant
    from service.engine.calls import Calls
    from service.engine.loaded import LoadedModel

_LOGGER: Final = logging.getLogger("tiergate")
_ENDS_WITHIN_S: Final = 5.0


class Remotes:
    """Makes the remote variants of the models that are loaded, and watches over their servers."""

    def __init__(self, file: RemotesFile, calls: Calls, observer: Observer) -> None:
        """Add lanes for what the file names; nothing is connected before ``start``."""
        self._file = file
        self._calls = calls
        self._observer = observer
        self._models: Callable[[], Iterable[LoadedModel]] = tuple
        self._watched: dict[tuple[str, str], tuple[RemoteVariant, asyncio.Task[None]]] = {}
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
        key = (info.name, variant.name)
        known = self._watched.get(key)
        if known is not None:
            if known[0].serves(info, variant):  # the model is loaded again, and it is what it was
                return known[0]
            known[1].cancel()
        file = self._file.remotes[info.name][variant.name]
        called = Called(file.model or pool_name(*key), file.version, info)
        servers = [Server(Endpoint(address), connect(address, called)) for address in file.endpoints]
        remote = RemoteVariant(info, variant, servers)
        watching = asyncio.create_task(remote.watch(lambda: self._changed(*key, remote)))
        self._watched[key] = remote, watching
        return remote

    async def _tell(self, model: LoadedModel) -> None:
        for name in model.remote:
            remote, _ = self._watched[model.info.name, name]
            self._set_usable(model.info.name, name, remote.up, [model])

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
