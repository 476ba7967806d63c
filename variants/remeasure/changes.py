"""What measuring again has changed, in words."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

from variants.domination import TOLERANCE
from variants.figures import MICRO, cell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from variants.manifest import VariantManifest
    from variants.remeasure.run import Remeasured

Place = tuple[int, int]
"""A batch size, and a number of threads."""


def tell_changes(found: Remeasured) -> Iterator[str]:
    """Yield a line for each variant that was measured, one on their order, one for each decision that is another."""
    before, after = found.before, found.manifest
    for variant in after.published:
        was_s, is_s = cell(before.variant(variant.name), 1).p50_s, cell(variant, 1).p50_s
        yield f"{variant.name}: p50 {was_s / MICRO:.1f} us, now {is_s / MICRO:.1f} us ({is_s / was_s - 1.0:+.1%})"
    places = sorted({(row.batch_size, row.threads) for row in after.variants[0].latency.rows})
    turned = sum(_has_turned(found, place) for place in places)
    yield f"variants have changed places, by more than 5 %, in {turned} of {len(places)} cells (batch size, threads)"
    for variant in after.variants:
        was = before.variant(variant.name).routing
        if (was.state, was.dominated_by) != (variant.routing.state, variant.routing.dominated_by):
            yield f"{variant.name}: {was.state}, now {variant.routing.state}: {variant.routing.reason}"
    if gone := len(before.cascades) - len(after.cascades):
        yield f"{gone} of {len(before.cascades)} cascades are left out: routing does not choose their variants any more"


def _has_turned(found: Remeasured, place: Place) -> bool:
    """Tell whether one variant was faster than another that is faster now, by more than what is noise."""
    was = {one.name: _p50_s(found.before.variant(one.name), place) for one in found.manifest.published}
    now = {one.name: _p50_s(one, place) for one in found.manifest.published}
    return any(was[one] < was[other] and now[one] > TOLERANCE * now[other] for one, other in permutations(was, 2))


def _p50_s(variant: VariantManifest, place: Place) -> float:
    batch_size, threads = place
    return cell(variant, batch_size, threads).p50_s
