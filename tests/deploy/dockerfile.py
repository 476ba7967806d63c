"""Dockerfiles, read and carried out without a container engine: far enough for ours, and no further.

Read: comments, continued lines, arguments, stages, the exec form. Carried out: FROM, ARG, WORKDIR, COPY and RUN of a
stage, in a folder that stands for its root; absolute paths in commands are moved there. The programs are this
machine's, so what is tested is the steps and not the base image.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Step:
    """One instruction and its text."""

    word: str
    text: str

    def listed(self) -> list[str]:
        """Return the exec form of a command."""
        return list(json.loads(self.text[self.text.index("[") :]))


@dataclass
class Stage:
    """What follows one FROM."""

    base: str
    name: str = ""
    steps: list[Step] = field(default_factory=list)

    def all(self, word: str) -> list[Step]:
        """Return the steps with an instruction."""
        return [step for step in self.steps if step.word == word]

    def last(self, word: str) -> Step:
        """Return the last step with an instruction, the one that holds."""
        return self.all(word)[-1]


def read(path: Path) -> tuple[dict[str, str], list[Stage]]:
    """Return the arguments before the first FROM with their defaults, and the stages."""
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for step in _steps(path.read_text(encoding="utf-8")):
        if step.word == "FROM":
            base, _, name = step.text.partition(" AS ")
            stages.append(Stage(base, name))
        elif stages:
            stages[-1].steps.append(step)
        else:
            name, _, default = step.text.partition("=")
            arguments[name] = default
    return arguments, stages


def _steps(text: str) -> Iterator[Step]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        yield Step(word.upper(), rest.strip())


@dataclass(frozen=True)
class Context:
    """The folder that is sent to a builder, less what its .dockerignore keeps back."""

    root: Path

    def has(self, name: str) -> bool:
        """Tell whether a path of the context is sent; the last rule that matches it or a folder above it holds."""
        kept = True
        for line in (self.root / ".dockerignore").read_text(encoding="utf-8").splitlines():
            rule = line.strip()
            if rule and not rule.startswith("#") and _matches(name, rule.lstrip("!")):
                kept = rule.startswith("!")
        return kept

    def copy(self, source: str, target: Path) -> None:
        """Copy a file or the content of a folder, as COPY does."""
        origin = self.root / source
        if origin.is_file():
            if not self.has(source):
                raise FileNotFoundError(f"{source} is kept back by .dockerignore")
            shutil.copy(origin, target)
            return
        for path in origin.rglob("*"):
            name = path.relative_to(self.root).as_posix()
            if path.is_file() and self.has(name):
                copied = target / path.relative_to(origin)
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copied)


def _matches(name: str, rule: str) -> bool:
    parts = name.split("/")
    above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    if rule.startswith("**/"):
        return any(fnmatch.fnmatchcase(part, rule.removeprefix("**/")) for part in parts)
    return any(one.count("/") == rule.count("/") and fnmatch.fnmatchcase(one, rule) for one in above)


def carry_out(stage: Stage, context: Context, root: Path, environment: Mapping[str, str]) -> None:
    """Carry out a stage's COPY and RUN steps below ``root``.

    Raises:
        subprocess.CalledProcessError: A command fails; its output is in the error.
    """
    folder = root
    for step in stage.steps:
        if step.word == "WORKDIR":
            folder = root / step.text.lstrip("/")
            folder.mkdir(parents=True, exist_ok=True)
        elif step.word == "COPY":
            *sources, target = shlex.split(step.text)
            for source in sources:
                context.copy(source, _inside(folder, root, target))
        elif step.word == "RUN":
            command = re.sub(r"(?<![\w.])/(?=opt/|src)", f"{root}/", step.text)
            subprocess.run(
                ["bash", "-euc", command], cwd=folder, env={**os.environ, **environment}, check=True,
                capture_output=True, text=True,
            )  # fmt: skip


def _inside(folder: Path, root: Path, target: str) -> Path:
    path = root / target.lstrip("/") if target.startswith("/") else folder / target
    if target.endswith(("/", ".")):
        path.mkdir(parents=True, exist_ok=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
    return path


def commands(stages: Sequence[Stage]) -> list[str]:
    """Return the text of every RUN."""
    return [step.text for stage in stages for step in stage.all("RUN")]
