"""What int8 variants lose on the processors that they are declared safe on, by emulation.

A manifest declares a variant safe where its weights exclude that pairs of products saturate (``proven_isa``), or where
emulating it lost little (``saturation``). Both are held to the same emulation here, on up to 512 test rows. What is
emulated is one instruction, ``vpmaddubsw``: dynamic int8 and 4-bit files, whose products are of other kinds, are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from variants.saturation import judge_saturation
from variants.scoring import CLASSES, scoring_of
from variants.sources.recipes import load_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtests.building.subjects import Rows, Subject
    from variants.manifest import VariantManifest


def emulate(subject: Subject, rows: Rows, progress: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Return by variant: rows, share of the same answers, and the loss where pairs saturate."""
    safe = [variant for variant in subject.timed if is_declared_safe(variant)]
    scoring = scoring_of(load_recipe(subject.recipe)) if safe else CLASSES
    found = {}
    for variant in safe:
        progress(f"{subject.manifest.model}: emulating saturation in {variant.name}")
        judged = judge_saturation(subject.file(variant), *rows, scoring)
        found[variant.name] = {"rows": judged.rows, "agreement": judged.agreement, "loss": judged.loss}
    return found


def is_declared_safe(variant: VariantManifest) -> bool:
    """Tell whether the manifest allows this static int8 variant on processors whose pairs saturate."""
    is_static = any(step.name == "quantize" for step in variant.steps)
    saturation = variant.hardware.saturation
    is_proven = "avx2" in variant.hardware.proven_isa
    return is_static and (is_proven or (saturation is not None and saturation.verdict == "pass"))
