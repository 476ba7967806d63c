"""What other settings did: a version of a model beside the one before it.

A recipe's numbers stand in its manifest: weight decay, dropout, L1, whether rows are varied, how many features a table
keeps, ratios, steps. Whoever changes one and builds again gets a new version; here is which numbers differ, and what
became of every variant's size, time and accuracy. Both are measured on the test rows of the same data and seed, or the
comparison says that they are not. Answers of the version before are not kept, so accuracies are compared by their
intervals and not row by row: small differences are chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from variants.figures import cell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from variants.manifest import ModelManifest, Step, VariantManifest

ABSENT: Final = "-"
FIT: Final = "fit"
"""The step that fits an estimator of scikit-learn's; what networks were fitted with stands in the plan."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What became of one variant: texts, before and after; one that is in one version alone has '-' in the other."""

    variant: str
    size: tuple[str, str]
    time: tuple[str, str]
    accuracy: tuple[str, str]


def changed_settings(before: ModelManifest, after: ModelManifest) -> tuple[tuple[str, str, str], ...]:
    """Return the name of every number that differs, its value before, and after; the seed too.

    A number that one manifest lacks counts if it lacks the whole part, as where a plan has no pruning. In a part that
    both have it is a setting that tiergate did not have yet, and nobody changed it.
    """
    old, new = (dict(_flat(_settings(manifest))) for manifest in (before, after))
    both = {_part(name) for name in old} & {_part(name) for name in new}
    names = [name for name in old | new if (name in old and name in new) or _part(name) not in both]
    told = ((name, old.get(name, ABSENT), new.get(name, ABSENT)) for name in names)
    return tuple(item for item in told if item[1] != item[2])


def effects(before: ModelManifest, after: ModelManifest) -> tuple[Effect, ...]:
    """Return what became of every variant that either version has, in the order of the later one."""
    old, new = ({item.name: _told(item) for item in manifest.variants} for manifest in (before, after))
    nothing = (ABSENT,) * 3
    told = {name: tuple(zip(old.get(name, nothing), new.get(name, nothing), strict=True)) for name in new | old}
    return tuple(Effect(name, *pairs) for name, pairs in told.items())


def _settings(manifest: ModelManifest) -> dict[str, Any]:
    """Return the plan's numbers, the seed, the test rows, and what estimators were fitted with."""
    fitted = {f"{variant.name}.{step.name}": step.parameters for variant, step in _steps(manifest) if step.name == FIT}
    test = manifest.splits.get("test")
    rows = {} if test is None else {"test rows": f"{test.rows}, {test.sha256[:12]}"}
    return {**manifest.recipe_parameters, "seed": manifest.seed, **rows, **fitted}


def _steps(manifest: ModelManifest) -> Iterator[tuple[VariantManifest, Step]]:
    return ((variant, step) for variant in manifest.variants for step in variant.steps)


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield every number with its name, those of parts behind the part's."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", f"{value}"


def _part(name: str) -> str:
    return name.rpartition(".")[0]


def _told(variant: VariantManifest) -> tuple[str, str, str]:
    accuracy = variant.accuracy
    return (
        f"{variant.size.file_bytes:,} bytes",
        f"{cell(variant, 1).p50_s * 1e6:.0f} us",
        f"{accuracy.value:.2%} ({accuracy.low:.1%}-{accuracy.high:.1%})",
    )
