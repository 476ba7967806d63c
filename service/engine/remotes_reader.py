"""The remotes file on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import yaml
from pydantic import ValidationError

from service.domain.remotes_file import RemotesFile

if TYPE_CHECKING:
    from pathlib import Path

_MOST_BYTES: Final = 2**20
_MOST_PROBLEMS: Final = 10


class RemotesError(ValueError):
    """The remotes file cannot be read or is not valid."""


def read_remotes(path: Path | None) -> RemotesFile:
    """Read a remotes file; without one nothing is remote.

    Raises:
        RemotesError: The file cannot be read, is not YAML, or breaks the schema.
    """
    if path is None:
        return RemotesFile()
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise RemotesError(f"remotes file {path} is larger than {_MOST_BYTES} bytes")
        return RemotesFile.model_validate(yaml.safe_load(content))
    except ValidationError as error:
        problems = [_in_words(item["loc"], item["msg"], item["input"]) for item in error.errors()[:_MOST_PROBLEMS]]
        raise RemotesError(f"remotes file {path} is not valid: {'; '.join(problems)}") from None
    except (OSError, RecursionError, yaml.YAMLError) as error:
        raise RemotesError(f"remotes file {path} cannot be read: {' '.join(str(error).split())}") from None


def _in_words(loc: tuple[int | str, ...], message: str, given: object) -> str:
    place = ".".join(map(str, loc)) or "the file"
    return f"{place} is {str(given)[:100]!r}; {message.removeprefix('Value error, ')}"
