"""The policy that the gateway goes by, and how another one takes its place.

Every way is the same: read -> validate -> hold against the loaded models -> swap. What fails on the way is logged and
counted, and the policy in force stays. The swap happens between two decisions and between two arrivals: requests that
wait keep their places, models keep what they learned of this machine, nothing is loaded or dropped.

A policy comes from the file, which is looked at again and again, or from an administrator. What an administrator
brings is written to the file first, so that the file always says what is in force; a gateway without a file holds it
in memory, until it ends.

The file is recognised by its inode, size and times. These follow links, so that Kubernetes' way to update a mounted
ConfigMap (a link is turned to another folder) is seen like any other. A file that has just changed may still be being
written: it is read when it looks the same twice.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from service.domain.errors import InvalidRequest, PolicyChanged, PolicyNotKept
from service.domain.policy_changes import policy_changes
from service.domain.policy_text import Replacement
from service.engine.daemon_work import in_daemon_thread
from service.engine.policy_reader import PolicyError, parse_policy, read_policy, write_policy

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from service.domain.observer import Observer
    from service.domain.policy_text import PolicyText
    from service.engine.dispatcher import Dispatcher
    from service.engine.registry import Registry

_LOGGER: Final = logging.getLogger("tiergate")
_LOOK_EVERY_S: Final = 0.5

Fingerprint = tuple[int, ...]


class PolicyInForce:
    """The policy of one gateway; used on the event loop that serves, by one caller after the other."""

    def __init__(
        self, text: PolicyText, path: Path | None, registry: Registry, dispatcher: Dispatcher, observer: Observer
    ) -> None:
        """Start with the policy that the registry has; ``path`` is the file that it was read from, if any."""
        self.text = text
        self._path = path
        self._registry = registry
        self._dispatcher = dispatcher
        self._observer = observer
        self._changing = asyncio.Lock()
        self._asked = asyncio.Event()
        self._noticed: Fingerprint | None = None
        self._read: Fingerprint | None = None
        self._last_problem = ""
        self.is_file_refused = False
        """Whether the file, as it was last read, cannot be taken: it says other than what is in force."""

    async def watch(self) -> None:
        """Look at the file for ever, where there is one."""
        while self._path is not None:
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._asked.wait()
            except TimeoutError:
                pass
            try:
                await (self._read_at_once() if self._asked.is_set() else self.look())
            except Exception:  # a surprise must not leave the file unwatched
                _LOGGER.exception("looking at the policy file failed")

    def ask(self) -> None:
        """Have the file read at once; a signal handler may call this."""
        self._asked.set()

    async def look(self) -> None:
        """Look at the file once, and read it if it has changed, but not since the last look."""
        if self._path is None:
            return
        async with self._changing:
            found = await asyncio.to_thread(fingerprint, self._path)
            if found == self._read:
                return
            if found != self._noticed:
                self._noticed = found
                return
            self._read = found
            await self._read_file(self._path)

    async def replace(self, content: bytes, expected: Collection[str] | None = None) -> Replacement:
        """Put an administrator's policy in force, and into the file where there is one.

        Args:
            content: YAML or JSON.
            expected: Digests of which the policy in force must have one; ``None`` where any may be replaced.

        Raises:
            PolicyChanged: Another policy is in force than was expected.
            InvalidRequest: The policy is not valid, or leaves a loaded model without a variant.
            PolicyNotKept: The file cannot be written.
        """
        async with self._changing:
            if expected is not None and self._path is not None:
                await self._read_file(self._path)  # who has just written the file counts too
            if expected is not None and self.text.digest not in expected:
                raise PolicyChanged(f"the policy in force has digest {self.text.digest}; read it again")
            try:
                text = await asyncio.to_thread(parse_policy, content, "the policy")
                self._hold_against_models(text)
            except PolicyError as error:
                self._observer.policy_refused(str(error))
                raise InvalidRequest(str(error)) from None
            if self._path is not None:
                try:
                    await asyncio.to_thread(write_policy, self._path, content)
                except PolicyError as error:
                    self._observer.policy_refused(str(error))
                    raise PolicyNotKept(f"{error}; change it where it comes from") from None
                self.is_file_refused, self._last_problem = False, ""
            return await self._swap(text)

    async def _read_at_once(self) -> None:
        self._asked.clear()
        async with self._changing:
            # Another look follows: what is written while this reads may look the same afterwards.
            self._read, self._last_problem = None, ""
            if self._path is not None:
                await self._read_file(self._path)

    async def _read_file(self, path: Path) -> None:
        try:
            text = await asyncio.to_thread(read_policy, path)
            if text.digest != self.text.digest:
                self._hold_against_models(text)
        except PolicyError as error:
            self.is_file_refused = True
            if str(error) != self._last_problem:
                self._last_problem = str(error)
                self._observer.policy_refused(str(error))
            return
        self.is_file_refused, self._last_problem = False, ""
        if text.digest != self.text.digest:
            await self._swap(text)

    def _hold_against_models(self, text: PolicyText) -> None:
        if problems := self._registry.check_policy(text.policy):
            raise PolicyError("the policy does not fit the models", problems)

    async def _swap(self, text: PolicyText) -> Replacement:
        prepared = await in_daemon_thread(partial(self._registry.prepare_policy, text.policy))
        with self._dispatcher.deciding:
            self._registry.apply_policy(text.policy, prepared)
        changes = tuple(map(str, policy_changes(self.text.policy, text.policy)))
        self.text = text
        self._observer.policy_applied(text.digest, changes)
        return Replacement(text.digest, changes, is_kept_in_file=self._path is not None)


def fingerprint(path: Path) -> Fingerprint:
    """Return what tells a file's versions apart, empty where there is none."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
