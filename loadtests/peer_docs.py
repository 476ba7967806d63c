"""The results of `make bench-peers` as Markdown, put between two comment marks of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from loadtests.marked_page import Marks, MarksMissing, image
from loadtests.peer_report import HEADER, SAMPLES_OF_A_P99, bare_lines, cells, lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["BEGIN", "END", "MarksMissing", "markdown", "rewrite"]

_MARKS: Final = Marks("bench-peers")
BEGIN: Final = _MARKS.begin
END: Final = _MARKS.end
_LEFT_COLUMNS: Final = 4
_WORDS: Final = "Throughput of every server, with p50 and p99, by model and protocol"


def rewrite(page: Path, document: Mapping[str, Any], picture: Path | None = None) -> None:
    """Replace what stands between the marks; ``picture`` is shown before the table.

    Raises:
        MarksMissing: The page lacks one, or has them the wrong way round.
    """
    shown = [image(page, picture, _WORDS)] if picture else []
    _MARKS.rewrite(page, [*shown, markdown(document)])


def markdown(document: Mapping[str, Any]) -> str:
    """Return the results with their circumstances."""
    machine = document["machine"]
    head = (
        f"`{document['command']}`, commit {document['commit']}, {document['date']}, {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['system']}; {document['placement']}. {document['rounds']} rounds of "
        f"{document['duration_s']:g} s a row; medians, and ratios with their range over rounds."
    )
    rows = [cells(line) for line in lines(document)]
    notes = [f"- {text}" for text in bare_lines(document)]
    notes += [f"- {peer['title']}: {_described(peer)}" for peer in document["peers"]]
    notes += [f"- not measured: {what}: {why.splitlines()[0]}" for what, why in document["failures"].items()]
    few = f"`*`: fewer than {SAMPLES_OF_A_P99} answers in all, too few to claim a p99."
    return "\n".join([head, "", *_table(rows), "", few, "", *notes, ""])


def _described(peer: Mapping[str, Any]) -> str:
    if peer["not_available"]:
        return f"not available: {peer['not_available']}"
    return "; ".join(filter(None, [", ".join(peer["packages"]), peer["setting"]]))


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    ruler = ["---" if index < _LEFT_COLUMNS or index == len(HEADER) - 1 else "---:" for index in range(len(HEADER))]
    return [f"| {' | '.join(row)} |" for row in (HEADER, ruler, *rows)]
