"""Find what to build: a recipe, or a model that was trained elsewhere; and say of others how to bring them.

Formats that are no ONNX are told by their name, because the way from each of them to ONNX is one line that their own
tools have. Pickles are not read, whatever they hold: reading one can run any code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from variants.errors import RecipeError
from variants.manifest import NAME_PATTERN
from variants.sources.recipes import ACCEPTED, BUNDLED, load_recipe, require_build_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from variants.recipe import AnyRecipe

ONNX_SUFFIX: Final = ".onnx"
CONFIG: Final = "config.json"
SAVED_MODEL: Final = "saved_model.pb"
PICKLED: Final = "is a pickle, and reading one can run code; build the model in a recipe of your own (docs/recipes.md)"
KERAS: Final = "is a Keras model; export it with model.export('model.onnx', format='onnx'), and build that"
TORCH: Final = "is torch's own form, which needs the network's code; export it with torch.onnx.export, and build that"
OTHERS: Final = {
    ".keras": KERAS,
    ".h5": KERAS,
    ".pt": TORCH,
    ".pth": TORCH,
    ".bin": TORCH,
    ".safetensors": "holds weights alone; give the Hugging Face folder that it belongs to, with its config.json",
    ".tflite": "is a TFLite model; convert it with: python -m tf2onnx.convert --tflite FILE --output model.onnx",
    ".pb": "is a TensorFlow graph; convert it with: python -m tf2onnx.convert --graphdef FILE --output model.onnx",
    ".ort": "is for one runtime and cannot be quantized; give the .onnx file that it was made from",
    ".pkl": PICKLED,
    ".pickle": PICKLED,
    ".joblib": PICKLED,
}


@dataclass(frozen=True, slots=True)
class Given:
    """What the user names: ``source``, and of a trained model the rows and what cannot be told from its file.

    ``tolerance`` makes answers values that are right within it; ``fixed`` gives axes beside the batch their size;
    ``boxes`` says that answers are a detector's, in YOLO's layout.
    """

    source: Path
    calibration: Path | None = None
    evaluate: Path | None = None
    name: str | None = None
    tolerance: float | None = None
    fixed: Mapping[str, int] = field(default_factory=dict)
    boxes: bool = False

    def model_name(self) -> str:
        """Return the model's name: the one given, or the file's as far as names allow.

        Raises:
            RecipeError: The one given is not allowed.
        """
        if self.name is None:
            return re.sub(r"[^a-z0-9._-]+", "-", self.source.resolve().stem.lower()).strip("._-")[:64] or "model"
        if not re.fullmatch(NAME_PATTERN, self.name):
            raise RecipeError(
                f"the name {self.name!r} is not allowed; allowed are 1 to 64 of a-z, 0-9, '.', '_' and '-', beginning "
                "with a letter or digit"
            )
        return self.name

    def options(self) -> tuple[str, ...]:
        """Return the options that only a trained model has and that were given."""
        values = {
            "--calibration": self.calibration,
            "--evaluate": self.evaluate,
            "--name": self.name,
            "--tolerance": self.tolerance,
            "--fix": self.fixed,
            "--boxes": self.boxes,
        }
        return tuple(option for option, value in values.items() if value)


def load_source(given: Given) -> AnyRecipe:
    """Return the recipe that ``given`` names, or that of the trained model that it names.

    Raises:
        RecipeError: There is none, or it cannot be built; says what is wrong with which file.
        MissingPart: It needs a package that is not installed.
    """
    source = given.source
    if given.boxes and given.tolerance is not None:
        raise RecipeError(
            f"--tolerance {given.tolerance:g} is for answers that are values, and --boxes says that '{source}' answers "
            "with boxes, which are right by class and overlap: leave one of the two out"
        )
    if source.suffix.lower() == ONNX_SUFFIX:
        require_build_extra()
        from variants.sources.given import read_given  # noqa: PLC0415 - the check above makes sure that it can be
        from variants.sources.onnx_files import read_model  # noqa: PLC0415 - the same

        return read_given(read_model(source, given.fixed), given)
    if _is_hugging_face(source):
        require_build_extra()
        from variants.sources.hugging_face import read_folder  # noqa: PLC0415 - as above

        return read_folder(given)
    if source.suffix.lower() in OTHERS:
        raise RecipeError(f"'{source}' {OTHERS[source.suffix.lower()]}")
    if (source / SAVED_MODEL).is_file():
        raise RecipeError(
            f"'{source}' is a TensorFlow SavedModel; convert it with: python -m tf2onnx.convert --saved-model {source} "
            "--output model.onnx"
        )
    if given.options():
        if not (source.exists() or str(source) in BUNDLED):
            raise RecipeError(f"there is no file or folder '{source}'; accepted: {ACCEPTED}")
        raise RecipeError(
            f"{given.options()[0]} is for a trained model, and '{source}' is not one: it needs no such thing"
        )
    return load_recipe(str(source))


def reload_of(given: Given, recipe: AnyRecipe) -> Callable[[], AnyRecipe]:
    """Return what gives another process, to which it is pickled, the ``recipe`` that ``given`` named.

    The recipe of a trained model goes there as it is, for reading it may have taken minutes. Others are loaded again:
    their class may be in a file that only the loader knows.
    """
    if given.source.suffix.lower() == ONNX_SUFFIX or _is_hugging_face(given.source):
        return partial(_same, recipe)
    return partial(load_recipe, str(given.source))


def _is_hugging_face(source: Path) -> bool:
    return (source / CONFIG).is_file()


def _same(recipe: AnyRecipe) -> AnyRecipe:
    return recipe
