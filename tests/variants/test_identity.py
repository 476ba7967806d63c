"""The build key changes with whatever changes bytes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from variants.identity import identify, own_sources

if TYPE_CHECKING:
    from variants.recipe import Recipe

ISA = ("avx2", "avx512f")


def test_key_is_the_same_for_the_same_build(tiny: Recipe) -> None:
    parts = tiny.load(0)
    assert identify(tiny, parts, 0, ISA) == identify(tiny, parts, 0, ISA)


def test_key_differs_on_another_instruction_set(tiny: Recipe) -> None:
    parts = tiny.load(0)
    assert identify(tiny, parts, 0, ISA).key != identify(tiny, parts, 0, ("avx2",)).key


def test_key_covers_python_and_the_sources_that_a_build_runs(tiny: Recipe) -> None:
    found = identify(tiny, tiny.load(0), 0, ISA)
    assert found.tools["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    names = {f"{path.parent.name}/{path.name}" for path in own_sources()}
    assert {"variants/making.py", "sources/recipes.py"} <= names
