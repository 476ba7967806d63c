"""A page with a place for results: what stands between two comment marks is rewritten, all else is kept."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class MarksMissing(ValueError):
    """The page has no place for the results."""


@dataclass(frozen=True, slots=True)
class Marks:
    """The lines around one benchmark's block, by the name of its make target."""

    name: str

    @property
    def begin(self) -> str:
        """The line before the block."""
        return f"<!-- {self.name}: begin; written by the benchmark, do not edit -->"

    @property
    def end(self) -> str:
        """The line after the block."""
        return f"<!-- {self.name}: end -->"

    def rewrite(self, page: Path, parts: Sequence[str]) -> None:
        """Put these parts between the marks.

        Raises:
            MarksMissing: The page lacks a mark, or has them the wrong way round.
        """
        text = page.read_text(encoding="utf-8")
        begin, end = text.find(self.begin), text.find(self.end)
        if begin < 0 or end < begin:
            raise MarksMissing(f"{page} must hold the line '{self.begin}' and after it the line '{self.end}'")
        block = "\n\n".join([self.begin, *parts])
        page.write_text(f"{text[:begin]}{block}\n{text[end:]}", encoding="utf-8")


def image(page: Path, picture: Path, words: str) -> str:
    """Return the link that shows a picture on a page; ``words`` say what is to be seen."""
    return f"![{words}]({os.path.relpath(picture, page.parent)})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """Return a table's lines; the first ``left`` columns are set to the left, the others to the right."""
    ruler = ["---" if place < left else "---:" for place in range(len(header))]
    return [f"| {' | '.join(row)} |" for row in (header, ruler, *rows)]
