from __future__ import annotations

from typing import TYPE_CHECKING

from loadtests.serving.pictures import draw_all
from loadtests.serving.report import MARKS, rewrite, text
from tests.loadtests.serving.documents import make_parts

if TYPE_CHECKING:
    from pathlib import Path


def test_page_has_a_table_for_each_bar_and_names_the_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{MARKS.begin}\nold\n{MARKS.end}\nafter\n")

    rewrite(page, make_parts(), draw_all(make_parts(), tmp_path / "images"))
    once = page.read_text()
    rewrite(page, make_parts(), draw_all(make_parts(), tmp_path / "images"))

    assert page.read_text() == once
    assert once.startswith("before\n")
    assert once.endswith(f"{MARKS.end}\nafter\n")
    assert "(images/serving-policies.svg)" in once
    assert "commit abc1234, 2026-01-02, a processor, 2 cores, 12 s" in once


def test_text_says_what_is_met_and_what_is_not() -> None:
    found = text(make_parts())
    assert "| a trace, load 0.5 | >= 99.99 % | 100 % | 100 % |  | met |" in found
    assert (
        "| of the gap best single variant to oracle | >= 90 % | 85.71 % | 100 % | a trace, load 0.5 | NOT met |"
        in found
    )
    assert "not calibrated: without the event loop's time" in found
    assert "invalid: schedule lag" in found
    assert "| a trace | 0.5 | tiergate, no cascades | 99.00 | 89.00 | 4 | 10 / - |" in found


def test_pictures_show_every_trace_and_every_variant_and_are_the_same_again(tmp_path: Path) -> None:
    first = draw_all(make_parts(), tmp_path / "one")
    second = draw_all(make_parts(), tmp_path / "two")
    for one, two in zip(first, second, strict=True):
        assert one.path.read_text() == two.path.read_text()
    policies, reliability = (picture.path.read_text() for picture in first)
    assert "a trace: effective accuracy, %" in policies
    assert "slackfit" in policies
    assert "full, 900 answers" in reliability
    assert "rare" not in reliability


def test_parts_that_were_not_run_are_left_out(tmp_path: Path) -> None:
    assert draw_all({}, tmp_path) == []
    assert text({}) == ""
