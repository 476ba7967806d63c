"""What can go wrong in a build, as named errors; the command line turns them into a message and exit code 2.

::

    BuildError
    ├── RecipeError      the recipe cannot be found, loaded or trusted (overlapping splits, wrong shapes)
    ├── MissingPart      an optional package is not installed; names the extra that brings it
    ├── GateFailed       the full variant misses its gate, so there is nothing to build on
    ├── BuildBusy        another build of the same model holds the lock
    └── OutputError      the repository cannot be written (full disk, permissions)
"""

from __future__ import annotations


class BuildError(Exception):
    """A build cannot go on, for a reason that its message tells."""


class RecipeError(BuildError):
    """A recipe is missing, cannot be loaded, or breaks a promise of the protocol."""


class MissingPart(BuildError):
    """An optional package is not installed."""


class GateFailed(BuildError):
    """The full variant misses its gate."""


class BuildBusy(BuildError):
    """Another build of the same model is running in the same repository."""


class OutputError(BuildError):
    """The repository cannot be written."""
