"""The terminal table shows whole figures, the important ones first."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from variants.figures import Figure
from variants.table import choose_columns, draw_table

if TYPE_CHECKING:
    from variants.manifest import ModelManifest


def draw(manifest: ModelManifest, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(*draw_table(manifest, width), sep="\n")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 120, 150, 160, 200])
def test_table_cuts_no_figure_off(cascaded: ModelManifest, width: int) -> None:
    printed = draw(cascaded, width)
    assert "…" not in printed
    for line in printed.splitlines():
        assert len(line.rstrip()) <= width
    for variant in cascaded.variants:
        assert variant.routing.state in printed


def test_table_has_what_a_choice_needs_at_120_characters(manifest: ModelManifest) -> None:
    heading = draw(manifest, 120).splitlines()[1]
    for column in ("variant", "file", "memory", "p50", "speed-up", "accuracy", "1 % verdict", "routing"):
        assert column in heading


def test_table_says_what_it_left_out(manifest: ModelManifest) -> None:
    assert "no room for: parameters, MACs" in draw(manifest, 80).replace("\n", " ")
    assert "no room for" not in draw(manifest, 200)


def test_columns_keep_their_order_whatever_their_importance() -> None:
    names = ("variant", "parameters", "MACs", "file", "download", "memory", "p50", "p99", "speed-up", "accuracy",
             "lost / gained", "1 % verdict", "0.1 % verdict", "routing")  # fmt: skip
    every = [Figure(name, "", ("x",)) for name in names]
    assert [figure.heading for figure in choose_columns(every, "accuracy", 32)] == [
        "variant", "file", "p50", "accuracy"
    ]  # fmt: skip
    assert [figure.heading for figure in choose_columns(every, "accuracy", 1)] == ["variant"]


def test_table_shows_who_answers_and_who_is_asked(cascaded: ModelManifest, manifest: ModelManifest) -> None:
    lines = draw(cascaded, 140).splitlines()
    heading = next(number for number, line in enumerate(lines) if "escalates to" in line)
    assert "12.5%" in lines[heading + 3]
    assert lines[heading + 3].split()[:3] == ["C2", "distilled", "full"]
    assert "escalates to" not in draw(manifest.model_copy(update={"cascades": ()}), 140)
