"""What the bench asks of a peer: be prepared, and serve one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadtests.processes import Command, running

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from loadtests.peers.environments import Environment
    from loadtests.peers.onnx_models import BenchModel
    from loadtests.shots import Target


@dataclass(frozen=True, slots=True)
class Site:
    """Where one server runs: its scratch folder, its cores, and the stack that ends it."""

    folder: Path
    cpus: frozenset[int] | None
    stack: contextlib.ExitStack

    def run(self, command: Command) -> None:
        """Start a server, to be ended with the stack.

        Raises:
            LoadError: It did not start.
        """
        self.stack.enter_context(running(command, self.cpus))


@dataclass(frozen=True, slots=True)
class Peer:
    """A server to compare with.

    ``prepare(cache)`` installs what is missing, and raises ``NotAvailable`` where it cannot be had; ``start`` serves
    one model and returns what can be asked; ``setting`` says in a few words how it was told to run. A peer that keeps a
    core busy while nobody asks is not ``is_resident``: it runs only while it is measured itself, so that it does not
    slow the others.
    """

    key: str
    title: str
    setting: str
    prepare: Callable[[Path], Environment]
    start: Callable[[Environment, BenchModel, Site], Sequence[Target]]
    is_resident: bool = True
