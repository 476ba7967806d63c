from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from loadtests.marked_page import Marks, MarksMissing, image, table

if TYPE_CHECKING:
    from pathlib import Path


def test_two_benchmarks_share_a_page(tmp_path: Path) -> None:
    one, other = Marks("bench-one"), Marks("bench-other")
    page = tmp_path / "page.md"
    page.write_text(f"a\n{one.begin}\nold\n{one.end}\nb\n{other.begin}\nkept\n{other.end}\nc\n")

    one.rewrite(page, ["new", ""])

    text = page.read_text()
    assert "old" not in text
    assert text.index("new") < text.index("b\n") < text.index("kept") < text.index("c\n")


def test_a_page_without_the_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{Marks('other').begin}\n{Marks('other').end}\n")
    with pytest.raises(MarksMissing, match="bench-one: begin"):
        Marks("bench-one").rewrite(page, ["new"])
    assert "new" not in page.read_text()


def test_a_picture_is_linked_from_where_the_page_lies(tmp_path: Path) -> None:
    assert image(tmp_path / "docs" / "a.md", tmp_path / "docs" / "images" / "x.svg", "what") == "![what](images/x.svg)"


def test_a_table_sets_figures_to_the_right() -> None:
    assert table(("a", "b"), [("x", "1")], left=1) == ["| a | b |", "| --- | ---: |", "| x | 1 |"]
