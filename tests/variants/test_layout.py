"""Labels stand near their bubbles and on nothing else."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import pytest

from variants.figures import cell, expected_s
from variants.layout import CASCADE, Box, lay_out
from variants.report import NARROW, WIDE

if TYPE_CHECKING:
    from variants.manifest import ModelManifest


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_labels_overlap_neither_each_other_nor_a_bubble(cascaded: ModelManifest, size: tuple[int, int]) -> None:
    plot = lay_out(cascaded, *size)
    labels = [bubble.label for bubble in plot.bubbles]
    circles = [Box(b.x - b.radius, b.y - b.radius, b.x + b.radius, b.y + b.radius) for b in plot.bubbles]
    assert not any(left.meets(right) for left, right in combinations(labels, 2))
    assert not any(label.meets(circle) for label in labels for circle in circles)
    assert all(label.is_within(Box(0, 0, *size)) for label in labels)


def test_plot_puts_faster_to_the_left_and_more_accurate_higher(manifest: ModelManifest) -> None:
    plot = lay_out(manifest, *WIDE)
    by_name = {bubble.name: bubble for bubble in plot.bubbles}
    for left, right in combinations(manifest.variants, 2):
        if left.accuracy.value > right.accuracy.value:
            assert by_name[left.name].y < by_name[right.name].y
    assert by_name["full"].radius == max(bubble.radius for bubble in plot.bubbles)
    assert len(plot.x_ticks) >= 2
    assert len(plot.y_ticks) >= 2


def test_cascade_stands_at_its_expected_time_between_its_variants(cascaded: ModelManifest) -> None:
    plot = lay_out(cascaded, *WIDE)
    by_name = {bubble.name: bubble for bubble in plot.bubbles}
    assert [bubble.name for bubble in plot.bubbles[-2:]] == ["C1", "C2"]
    assert {by_name["C1"].state, by_name["C2"].state} == {CASCADE}
    assert by_name["C2"].y < by_name["C1"].y, "the more accurate stands higher"
    assert by_name["distilled"].x < by_name["C2"].x
    distilled, full = (cell(cascaded.variant(name), 1).p50_s for name in ("distilled", "full"))
    assert expected_s(cascaded, cascaded.cascades[1]) == pytest.approx(distilled + 0.125 * full)
