"""The report's page shows what the manifest has, and no empty section."""

from __future__ import annotations

from typing import TYPE_CHECKING

from variants.pareto import draw_png
from variants.report import render_html

if TYPE_CHECKING:
    from variants.manifest import ModelManifest

PNG = b"\x89PNG"


def test_report_shows_cascades_in_their_table_and_as_diamonds(cascaded: ModelManifest) -> None:
    page = render_html(cascaded)
    assert "<h2>Cascades</h2>" in page
    assert page.count("<polygon") == 2 * len(cascaded.cascades), "once in each width of the plot"
    assert "2 / 11" in page


def test_report_without_cascades_does_not_speak_of_them(manifest: ModelManifest) -> None:
    page = render_html(manifest.model_copy(update={"cascades": ()}))
    assert "ascades" not in page
    assert "<polygon" not in page


def test_plot_draws_cascades(cascaded: ModelManifest) -> None:
    picture = draw_png(cascaded)
    assert picture.startswith(PNG)
    assert picture != draw_png(cascaded.model_copy(update={"cascades": ()}))
