"""Servers under test as processes: started on chosen cores, awaited, and ended with everything that they started."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import socket
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Final

import psutil

from loadtests.h2load import LoadError, on_cpus
from service.interrupts import interrupts_held, on_interrupt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_MARK: Final = "TIERGATE_LOADTEST_SERVER"
_POLL_S: Final = 0.05
_OK: Final = 200
_PORTS: Final = range(20_000, 32_000)
"""Below Linux's default range for port 0 and for the near end of connections."""


@dataclass(frozen=True, slots=True)
class Command:
    """One server to start.

    It is ready when ``GET ready_path`` on ``port`` answers 200, or, without a path, when the port accepts. Its output
    goes to the file ``log``, and into the message where it does not start.
    """

    arguments: Sequence[str]
    port: int
    ready_path: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None
    log: Path | None = None
    start_s: float = 300.0
    stop_s: float = 30.0


def free_port() -> int:
    """Return a loopback port that nothing listens on now, and that the kernel gives to nobody by itself.

    One of the kernel's own choice may be a connection's, or another server's, before the server that is to have it is
    there.
    """
    while True:
        port = secrets.choice(_PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def running(command: Command, cpus: frozenset[int] | None = None) -> Iterator[psutil.Process]:
    """Run a server on ``cpus`` until the block ends; then end it and all processes that descend from it.

    Raises:
        LoadError: It ended, or was not ready in time; the last lines that it wrote are in the message.
    """
    mark = uuid.uuid4().hex
    environment = {**os.environ, **command.environment, _MARK: mark}
    with contextlib.ExitStack() as stack:
        output: IO[bytes] | int = stack.enter_context(command.log.open("wb")) if command.log else subprocess.DEVNULL
        process: subprocess.Popen[bytes] | None = None
        try:
            with on_cpus(cpus), interrupts_held():
                process = subprocess.Popen(  # noqa: S603 - our own servers, by arguments made here
                    list(command.arguments),
                    env=environment,
                    cwd=command.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT if command.log else None,
                    start_new_session=True,  # Ctrl-C reaches the bench alone, which then ends its servers in order
                )
            _await_ready(command, process)
            yield psutil.Process(process.pid)
        finally:
            if process is not None:
                with on_interrupt(process.kill):  # impatience must not leave it behind
                    _end(process, mark, command.stop_s)


def _end(process: subprocess.Popen[bytes], mark: str, stop_s: float) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(stop_s)
    # What a server leaves behind: workers that it did not end, daemons that left its session, or itself.
    left = _marked(mark)
    for item in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            item.kill()
    psutil.wait_procs(left, timeout=stop_s)
    process.wait(stop_s)


def _marked(mark: str) -> list[psutil.Process]:
    """Return the processes that inherited a server's environment, wherever they hang in the process tree."""
    found = []
    for item in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # ended meanwhile, or another user's
            if item.environ().get(_MARK) == mark:
                found.append(item)
    return found


def _await_ready(command: Command, process: subprocess.Popen[bytes]) -> None:
    end_s = time.monotonic() + command.start_s
    while process.poll() is None and time.monotonic() < end_s:
        if _is_ready(command):
            return
        time.sleep(_POLL_S)
    why = f"ended with status {process.returncode}" if process.returncode is not None else "was not ready in time"
    said = command.log.read_text(errors="replace").strip()[-2000:] if command.log else ""
    raise LoadError(f"{' '.join(command.arguments)} {why} (port {command.port})" + (f":\n{said}" if said else ""))


def _is_ready(command: Command) -> bool:
    try:
        if command.ready_path is None:
            with socket.create_connection(("127.0.0.1", command.port), timeout=1.0):
                return True
        connection = http.client.HTTPConnection("127.0.0.1", command.port, timeout=5.0)
        with contextlib.closing(connection):
            connection.request("GET", command.ready_path)
            return connection.getresponse().status == _OK
    except (OSError, http.client.HTTPException):
        return False
