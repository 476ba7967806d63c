"""What can go wrong in a build, as named errors; the command line turns them into a message and exit code 2.

::

    BuildError
    ├── StepFailed       a library, or a method of the recipe, raised inside a step; the cause is chained
    ├── RecipeError      the recipe cannot be found, loaded or trusted (overlapping splits, wrong shapes)
    ├── MissingPart      an optional package is not installed; names the extra that brings it
    ├── LeftOut          one variant cannot be made of this model, and the others can do without it
    ├── GateFailed       the full variant misses its gate, so there is nothing to build on
    ├── BuildBusy        another build of the same model holds the lock
    └── OutputError      the repository cannot be written (full disk, permissions)
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class BuildError(Exception):
    """A build cannot go on, for a reason that its message tells."""


class StepFailed(BuildError):
    """Something that the build called raised an error that it has no name for."""


class RecipeError(BuildError):
    """A recipe is missing, cannot be loaded, or breaks a promise of the protocol."""


class MissingPart(BuildError):
    """An optional package is not installed."""


class LeftOut(BuildError):
    """A variant cannot be made of this model; the others are made all the same."""


class GateFailed(BuildError):
    """The full variant misses its gate."""


class BuildBusy(BuildError):
    """Another build of the same model is running in the same repository."""


class OutputError(BuildError):
    """The repository cannot be written."""


@contextmanager
def naming_step(step: str) -> Iterator[None]:
    """Turn whatever torch, onnx, onnxruntime or a recipe raises inside into an error that names the step.

    Wrap what computes, not what writes to the repository: a full disk has its own error.

    Raises:
        StepFailed: Something that is no ``BuildError`` was raised inside; it is the cause.
    """
    try:
        yield
    except BuildError:
        raise
    except Exception as error:
        raise StepFailed(f"step '{step}' failed: {type(error).__name__}: {error}") from error
