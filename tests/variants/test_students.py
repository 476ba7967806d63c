"""A recipe may have students of several sizes: each is a variant of its own, made after full."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.variants.conftest import TINY, Listener
from variants.cache import StepCache
from variants.making import make_variants
from variants.recipe import Recipe, Training, students_of
from variants.recipes.digits import ResidualNet
from variants.sources.recipes import load_recipe
from variants.workshop import Workshop

if TYPE_CHECKING:
    from pathlib import Path

    from variants.workshop import Made


class Several:
    """The tiny recipe with a second student, everything else of its build left out."""

    def __init__(self) -> None:
        tiny = load_recipe(str(TINY))
        assert isinstance(tiny, Recipe)
        self.tiny, short = tiny, Training(steps=8, batch_size=16)
        self.plan = replace(tiny.plan, training=short, distillation=short, pruning=None, quantization=None)
        self.more_students = {"small": lambda: ResidualNet((4,), blocks=1)}

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the tiny recipe has
        return getattr(self.tiny, name)


def make(folder: Path, listener: Listener) -> tuple[Made, ...]:
    recipe: Any = Several()
    return make_variants(Workshop(recipe, recipe.load(0), 0, StepCache(folder), listener))


def test_every_student_is_a_variant_of_its_own_and_goes_on_where_a_build_stopped(tmp_path: Path) -> None:
    made = make(tmp_path, Listener())
    assert [(one.name, one.tier) for one in made] == [
        ("full", "full"),
        ("distilled", "distilled"),
        ("distilled-small", "distilled"),
    ]
    assert [None if one.parent is None else one.parent.name for one in made] == [None, "full", "full"]
    assert len(made[2].file) < len(made[1].file) < len(made[0].file)
    listener = Listener()
    assert [one.file for one in make(tmp_path, listener)] == [one.file for one in made]
    assert listener.tasks == []


def test_a_recipe_has_one_student_unless_it_names_more() -> None:
    tiny: Any = load_recipe(str(TINY))
    assert list(students_of(tiny)) == ["distilled"]
