"""One virtual environment for each peer, ``<cache>/<peer>``, made once and kept; all versions stand in one file."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

VERSIONS: Final = Path(__file__).with_name("versions.yaml")
SERVICES: Final = Path(__file__).with_name("services")
_STAMP: Final = "prepared.json"
_INSTALL_S: Final = 1800.0


class NotAvailable(RuntimeError):
    """A peer cannot be had on this machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Pins:
    """What a peer's environment holds: packages, and wheels that are installed without their dependencies."""

    packages: tuple[str, ...]
    alone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Environment:
    """A prepared environment."""

    folder: Path

    @property
    def python(self) -> str:
        """The environment's interpreter."""
        return self.program("python")

    @property
    def site_packages(self) -> Path:
        """Where its packages lie."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / "lib" / version / "site-packages"

    def program(self, name: str) -> str:
        """Return the path of one of its commands."""
        return str(self.folder / "bin" / name)


def read_pins(peer: str, versions: Path = VERSIONS) -> Pins:
    """Return what is pinned for a peer.

    Raises:
        KeyError: Nothing is.
    """
    entry: dict[str, Any] = yaml.safe_load(versions.read_text())[peer]
    return Pins(tuple(entry["packages"]), tuple(entry.get("alone", ())))


def prepare_environment(peer: str, cache: Path) -> Environment:
    """Make a peer's environment, or find it made; an interrupted or outdated one is completed.

    Raises:
        NotAvailable: A package cannot be installed.
    """
    pins = read_pins(peer)
    folder = (cache / peer).absolute()
    stamp, wanted = folder / _STAMP, describe(pins)
    if stamp.is_file() and stamp.read_text() == wanted:
        return Environment(folder)
    stamp.unlink(missing_ok=True)
    environment = Environment(folder)
    _run([sys.executable, "-m", "venv", str(folder)], f"the environment {folder} cannot be made")
    for requirements, options in ((pins.alone, ["--no-deps"]), (pins.packages, [])):
        if requirements:
            pip = [environment.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            # Most of what a peer installs is never imported; what is, is compiled then.
            _run([*pip, "--no-compile", *options, *requirements], f"pip cannot install {', '.join(requirements)}")
    stamp.write_text(wanted)
    return environment


def describe(pins: Pins) -> str:
    """Return what decides whether an environment is up to date."""
    version = ".".join(map(str, sys.version_info[:3]))
    return json.dumps({"python": version, "packages": pins.packages, "alone": pins.alone})


def _run(command: list[str], problem: str) -> None:
    try:
        # Our own interpreter, or one of an environment made here.
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_S)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotAvailable(f"{problem}: {error}") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        told = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        raise NotAvailable(f"{problem}: {told}")
