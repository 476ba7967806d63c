from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from loadtests.peer_docs import BEGIN, END, MarksMissing, markdown, rewrite
from loadtests.peer_plot import draw
from tests.loadtests.peer_documents import make_document

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENT = make_document(rate_hz={"tiergate": 3000.0, "Triton": 2000.0})


def test_page_keeps_all_but_what_stands_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{BEGIN}\nold figures\n{END}\n\nafter\n")

    rewrite(page, DOCUMENT)
    once = page.read_text()
    rewrite(page, DOCUMENT)

    assert page.read_text() == once
    assert once.startswith(f"before\n\n{BEGIN}\n")
    assert once.endswith(f"{END}\n\nafter\n")
    assert "old figures" not in once
    assert (
        "| mlp | gRPC | 1 | Triton | 2,000 | 0.500 | 1.000 | 0.490 | 1.50 (1.50-1.50) | 1.00 (1.00-1.00) | met |"
        in once
    )


def test_picture_is_linked_from_where_the_page_lies(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text(f"{BEGIN}\n{END}\n")

    rewrite(page, DOCUMENT, tmp_path / "docs" / "images" / "peers.svg")

    assert "(images/peers.svg)\n" in page.read_text()


@pytest.mark.parametrize("text", ["no marks", f"{END}\n{BEGIN}\n", f"{BEGIN}\n"])
def test_page_without_a_place_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)

    with pytest.raises(MarksMissing, match=r"page\.md must hold the line"):
        rewrite(page, DOCUMENT)

    assert page.read_text() == text


def test_markdown_names_the_run_and_what_was_not_measured() -> None:
    text = markdown(DOCUMENT)

    assert "commit abc1234, 2026-01-02, a processor, 2 cores" in text
    assert "- Triton: a==1; as it comes" in text
    assert "- Ray Serve: not available: no wheel" in text
    assert "- not measured: Ray Serve, mlp, gRPC: it answered nothing\n" in text


def test_picture_shows_every_server_and_is_the_same_again(tmp_path: Path) -> None:
    first, second = tmp_path / "images" / "one.svg", tmp_path / "two.svg"

    draw(DOCUMENT, first)
    draw(DOCUMENT, second)

    content = first.read_text()
    assert content == second.read_text()
    assert "Triton" in content
    assert "3,000/s, 0.5 / 1.0 ms" in content
