"""When requests came and what they asked for, kept in files from which a policy can be tuned. No payloads.

One CSV file for each model, and the one before it: at ``most_bytes`` a file becomes ``MODEL~old.csv`` in place of the
last one of that name. Rows are kept in memory until a thread writes them, twice a second; where the disk does not keep
up, rows are dropped and counted. A disk that fails ends the recording, never the serving.

Requests that were turned away unread name no model, and those that were wrong ask for nothing: neither is here.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from service.domain.errors import InvalidRequest, NotFound
from service.domain.observer import SilentObserver
from service.policy.hardware import choose_class

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from service.domain.inference import Answer, ClientHardware, InferenceRequest
    from service.domain.policy_file import HardwareClass

_LOGGER: Final = logging.getLogger("tiergate")
_WRITE_EVERY_S: Final = 0.5
_MOST_WAITING: Final = 100_000
_LEAVE_BEHIND_S: Final = 5.0
MOST_BYTES: Final = 16 * 2**20
HEADER: Final = b"time_s,budget_ms,timeout_ms,criticality,hardware\n"


class ArrivalLog(SilentObserver):
    """Records arrivals into ``folder``. ``clock`` gives seconds since the epoch."""

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float],
        most_bytes: int = MOST_BYTES,
        classes: Callable[[], Mapping[str, HardwareClass]] = dict,
    ) -> None:
        """Make the folder; ``start`` writes. ``classes`` gives the hardware classes that devices belong to now.

        Raises:
            OSError: The folder cannot be made.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.dropped = 0
        self._folder = folder
        self._clock = clock
        self._most_bytes = most_bytes
        self._classes = classes
        self._noted: list[tuple[str, str]] = []
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._has_failed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the writing thread."""
        self._thread = threading.Thread(target=self._run, name="arrivals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is left, and end the thread."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(_LEAVE_BEHIND_S)

    def request_finished(self, request: InferenceRequest, answer: Answer) -> None:
        """Note an answered request."""
        self._note(request, answer.total_s)

    def request_refused(self, request: InferenceRequest, error: BaseException, waited_s: float) -> None:
        """Note a request that was refused for another reason than its own fault."""
        if not isinstance(error, InvalidRequest | NotFound):
            self._note(request, waited_s)

    def content(self, model: str) -> bytes:
        """Return the recording of a model as CSV, the oldest file first; only the header where there is nothing."""
        with self._writing:
            self._write_all()
            parts = [_rows_of(path) for path in (self._old(model), self._current(model))]
        return HEADER + b"".join(parts)

    def _note(self, request: InferenceRequest, age_s: float) -> None:
        if len(self._noted) >= _MOST_WAITING or self._has_failed:
            self.dropped += 1
            return
        knobs = request.knobs
        hardware = "" if knobs.hardware is None else self._class_of(knobs.hardware)
        row = (
            f"{self._clock() - age_s:.6f},{_in_ms(knobs.budget_s)},{_in_ms(knobs.timeout_s)},"
            f"{knobs.criticality.name.lower()},{hardware}\n"
        )
        self._noted.append((request.model, row))

    def _class_of(self, device: ClientHardware) -> str:
        return device.class_name or choose_class(device, self._classes()) or "described"

    def _run(self) -> None:
        while not self._ended.wait(_WRITE_EVERY_S):
            with self._writing:
                self._write_all()
        with self._writing:
            self._write_all()

    def _write_all(self) -> None:
        # Rows are noted meanwhile: only so many are taken as are there now.
        size = len(self._noted)
        noted, self._noted[:size] = self._noted[:size], []
        if self._has_failed:
            return
        rows: dict[str, list[str]] = {}
        for model, row in noted:
            rows.setdefault(model, []).append(row)
        try:
            for model, texts in rows.items():
                self._write(model, "".join(texts).encode())
        except OSError as error:
            self._has_failed = True
            why = error.strerror or error
            _LOGGER.error("arrivals are not recorded in %s any more: %s", self._folder, why)  # noqa: TRY400 - no riddle

    def _write(self, model: str, content: bytes) -> None:
        path = self._current(model)
        size = path.stat().st_size if path.exists() else 0
        if size and size + len(content) > self._most_bytes:
            path.replace(self._old(model))
            size = 0
        with path.open("ab") as file:
            file.write(content if size else HEADER + content)

    def _current(self, model: str) -> Path:
        return self._folder / f"{model}.csv"

    def _old(self, model: str) -> Path:
        return self._folder / f"{model}~old.csv"


def _rows_of(path: Path) -> bytes:
    try:
        return path.read_bytes().removeprefix(HEADER)
    except FileNotFoundError:
        return b""


def _in_ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.6g}"
