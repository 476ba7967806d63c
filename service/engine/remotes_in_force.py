"""The remotes file that the gateway goes by, and how a changed one takes its place.

Read -> validate, certificates too -> load the models again of which it says something else, each beside the one that
serves -> swap -> the servers that nobody names any more are let go when nothing waits for them. What fails on the way
is logged and counted, and what was in force stays: a model that could not be loaded again takes the others back with
it. One that could not be loaded before, for want of servers perhaps, is tried too, and holds nothing up.

The file and the certificates that it names are looked at again and again, and read when they have changed and look the
same twice, as the policy file is; and at once when a signal asks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from typing import TYPE_CHECKING, Final

from service.domain.errors import TiergateError
from service.engine.policy_in_force import fingerprint
from service.engine.remotes_reader import RemotesError, read_certificates, read_remotes

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from service.domain.observer import Observer
    from service.domain.remotes_file import RemotesFile
    from service.engine.policy_in_force import Fingerprint
    from service.engine.registry import Registry
    from service.engine.remotes import Remotes

_LOGGER: Final = logging.getLogger("tiergate")
_LOOK_EVERY_S: Final = 0.5


class RemotesInForce:
    """The remotes file of one gateway; used on the event loop that serves."""

    def __init__(self, path: Path, remotes: Remotes, registry: Registry, observer: Observer) -> None:
        """Start with the file that ``remotes`` were made by."""
        self._path = path
        self._remotes = remotes
        self._registry = registry
        self._observer = observer
        self._asked = asyncio.Event()
        self._certificates = _certificates(remotes.in_force[0], path)
        self._read = self._noticed = self._look()
        self._last_problem = ""
        self.is_file_refused = False
        """Whether the file, as it was last read, cannot be taken: it says other than what is in force."""

    async def watch(self) -> None:
        """Look at the files for ever."""
        while True:
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._asked.wait()
            except TimeoutError:
                pass
            is_asked = self._asked.is_set()
            self._asked.clear()
            try:
                await self.look(at_once=is_asked)
            except Exception:  # a surprise must not leave the file unwatched
                _LOGGER.exception("looking at the remotes file failed")

    def ask(self) -> None:
        """Have the file read at once; a signal handler may call this."""
        self._asked.set()

    async def look(self, *, at_once: bool = False) -> None:
        """Look at the files once, and read them if they have changed, but not since the last look; or ``at_once``."""
        found = await asyncio.to_thread(self._look)
        was_noticed, self._noticed = found == self._noticed, found
        if at_once:
            self._read = ()  # what is written while this reads may look the same afterwards: another look follows
        elif found == self._read or not was_noticed:
            return
        else:
            self._read = found
        await asyncio.to_thread(self._read_file)

    def _look(self) -> tuple[Fingerprint, ...]:
        return tuple(fingerprint(path) for path in (self._path, *self._certificates))

    def _read_file(self) -> None:
        before = self._remotes.in_force
        try:
            file = read_remotes(self._path)
            self._certificates = _certificates(file, self._path)
            changed = self._remotes.go_by(file, read_certificates(file, self._path.parent))
            try:
                for model in self._loaded(changed):
                    self._registry.load(model)
            except Exception as error:  # whatever it is, what was in force has to be again
                self._remotes.go_by(*before)
                self._try(self._loaded(changed))
                if not isinstance(error, TiergateError):
                    raise
                raise RemotesError(f"remotes file {self._path} does not fit the models: {error}") from None
            self._try(changed & {*self._registry.failed()})
        except RemotesError as error:
            self._refuse(str(error))
            return
        self.is_file_refused, self._last_problem = False, ""
        if changed:
            digest = hashlib.sha256(file.model_dump_json().encode()).hexdigest()
            self._observer.remotes_applied(digest, tuple(sorted(changed)))

    def _try(self, models: Collection[str]) -> None:
        for model in models:
            with contextlib.suppress(TiergateError):  # then what serves, if anything, stays as it is
                self._registry.load(model)

    def _loaded(self, models: Collection[str]) -> list[str]:
        """Return which of these are loaded."""
        return [model.info.name for model in self._registry.all() if model.info.name in models]

    def _refuse(self, why: str) -> None:
        self.is_file_refused = True
        if why != self._last_problem:
            self._last_problem = why
            self._observer.remotes_refused(why)


def _certificates(file: RemotesFile, path: Path) -> list[Path]:
    """Return the certificates that a file names, each once."""
    items = [item.tls for variants in file.remotes.values() for item in variants.values()]
    names = {name for tls in items for name in (tls.ca_file, tls.client_cert_file, tls.client_key_file) if name}
    return [path.parent / name for name in sorted(names)]
