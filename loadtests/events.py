"""What a scenario does to the gateway while the load runs: unload the model, load it, break its best variant.

Breaking needs a repository of our own: a variant's file is taken away from a copy, and the model loaded anew, as if a
volume had lost it. Loading and unloading go through the admin listener.
"""

from __future__ import annotations

import http.client
import shutil
import threading
import time
from typing import TYPE_CHECKING, Final, Self

from loadtests.h2load import LoadError
from variants.manifest import read_manifest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadtests.plan import Address
    from loadtests.scenario import Event, Scenario
    from variants.manifest import ModelManifest

_OK: Final = 200
_WAIT_S: Final = 60.0


def newest_version(repository: Path, model: str) -> tuple[Path, ModelManifest]:
    """Return the folder and the manifest of a model's newest version.

    Raises:
        LoadError: There is none.
    """
    found = sorted((path for path in (repository / model).glob("[1-9]*")), key=lambda path: int(path.name))
    if not found:
        raise LoadError(f"there is no model '{model}' in {repository}; build one with: tiergate build RECIPE")
    return found[-1], read_manifest(found[-1])


def copy_model(repository: Path, model: str, into: Path) -> Path:
    """Copy a model's newest version into a repository of its own; return that repository."""
    folder, _ = newest_version(repository, model)
    shutil.copytree(folder, into / model / folder.name)
    return into


class Troublemaker:
    """Does a scenario's events in a thread, each at its moment; ``faults`` tells those that did not work."""

    def __init__(self, scenario: Scenario, address: Address, repository: Path | None) -> None:
        """Check that the events can be done.

        Raises:
            LoadError: They cannot, on this gateway.
        """
        if any(event.do == "break_variant" for event in scenario.events) and repository is None:
            raise LoadError(f"scenario '{scenario.name}' breaks a variant, which needs --repository")
        self._model = scenario.model
        self._events = sorted(scenario.events, key=lambda event: event.at_ratio)
        self._duration_s, self._warmup_s = scenario.duration_s, scenario.warmup_s
        self._address = address.admin
        self._repository = repository
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._first_s = 0.0
        self.faults: list[str] = []

    def __enter__(self) -> Self:
        """Do what belongs before the first request."""
        self._do([event for event in self._events if event.at_ratio == 0.0])
        return self

    def start(self, start_s: float) -> None:
        """Do the rest, each at its moment; the schedule starts at ``start_s`` of ``time.monotonic``."""
        self._first_s = start_s + self._warmup_s
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        """Leave the rest undone."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(_WAIT_S)

    def _work(self) -> None:
        for event in self._events:
            if event.at_ratio == 0.0:
                continue
            left_s = self._first_s + event.at_ratio * self._duration_s - time.monotonic()
            if self._stop.wait(max(0.0, left_s)):
                return
            self._do([event])

    def _do(self, events: Sequence[Event]) -> None:
        for event in events:
            try:
                self._do_one(event)
            except (OSError, LoadError, http.client.HTTPException) as error:
                self.faults.append(f"event '{event.do}' did not work: {error}")

    def _do_one(self, event: Event) -> None:
        if event.do == "break_variant" and self._repository is not None:
            folder, manifest = newest_version(self._repository, self._model)
            best = max(manifest.published, key=lambda item: (item.accuracy.value, item.tier == "full"))
            (folder / best.file).unlink()
        self._call("unload" if event.do == "unload" else "load")

    def _call(self, what: str) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=_WAIT_S)
        try:
            connection.request("POST", f"/v2/repository/models/{self._model}/{what}")
            response = connection.getresponse()
            if response.status != _OK:
                raise LoadError(f"{self._address} answered {response.status}: {response.read().decode()}")
        finally:
            connection.close()
