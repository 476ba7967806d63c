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


STEPWISE, ALIKE = (0.0008, 0.0005, 0.0004, 0.0003, 0.0001, 0.00008), (0.0101, 0.01, 0.0099, 0.0102, 0.0098, 0.01)


def timed(manifest: ModelManifest, times_s: tuple[float, ...]) -> ModelManifest:
    """Return the manifest with other times of one row: those that were measured depend on how busy the machine was."""
    variants = []
    for variant, time_s in zip(manifest.variants, times_s, strict=True):
        rows = tuple(row.model_copy(update={"p50_s": time_s * row.batch_size}) for row in variant.latency.rows)
        latency = variant.latency.model_copy(update={"rows": rows})
        variants.append(variant.model_copy(update={"latency": latency}))
    return manifest.model_copy(update={"variants": tuple(variants)})


@pytest.mark.parametrize("times_s", [STEPWISE, ALIKE])
@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_labels_overlap_neither_each_other_nor_a_bubble(
    cascaded: ModelManifest, size: tuple[int, int], times_s: tuple[float, ...]
) -> None:
    plot = lay_out(timed(cascaded, times_s), *size)
    labels = [bubble.label for bubble in plot.bubbles]
    circles = [Box(b.x - b.radius, b.y - b.radius, b.x + b.radius, b.y + b.radius) for b in plot.bubbles]
    assert not any(left.meets(right) for left, right in combinations(labels, 2))
    assert not any(label.meets(circle) for label in labels for circle in circles)
    assert all(label.is_within(Box(0, 0, *size)) for label in labels)


def test_plot_puts_faster_to_the_left_and_more_accurate_higher(manifest: ModelManifest) -> None:
    plot = lay_out(timed(manifest, STEPWISE), *WIDE)
    by_name = {bubble.name: bubble for bubble in plot.bubbles}
    for left, right in combinations(manifest.variants, 2):
        assert by_name[left.name].x > by_name[right.name].x
        if left.accuracy.value > right.accuracy.value:
            assert by_name[left.name].y < by_name[right.name].y
    assert by_name["full"].radius == max(bubble.radius for bubble in plot.bubbles)
    assert len(plot.x_ticks) >= 2
    assert len(plot.y_ticks) >= 2


def test_cascade_stands_at_its_expected_time_between_its_variants(cascaded: ModelManifest) -> None:
    cascaded = timed(cascaded, STEPWISE)
    plot = lay_out(cascaded, *WIDE)
    by_name = {bubble.name: bubble for bubble in plot.bubbles}
    assert [bubble.name for bubble in plot.bubbles[-2:]] == ["C1", "C2"]
    assert {by_name["C1"].state, by_name["C2"].state} == {CASCADE}
    assert by_name["C2"].y < by_name["C1"].y, "the more accurate stands higher"
    assert by_name["distilled"].x < by_name["C2"].x
    distilled, full = (cell(cascaded.variant(name), 1).p50_s for name in ("distilled", "full"))
    assert expected_s(cascaded, cascaded.cascades[1]) == pytest.approx(distilled + 0.125 * full)
