"""The remotes file on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import yaml
from pydantic import ValidationError

from service.domain.remotes_file import RemotesFile
from service.engine.backends.trust import read_trust

if TYPE_CHECKING:
    from pathlib import Path

    from service.domain.remotes_file import TlsFiles
    from service.engine.backends.trust import Trust

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


def read_certificates(file: RemotesFile, folder: Path | None = None) -> dict[tuple[str, str], Trust]:
    """Read the certificates of every variant, by model and variant; ``folder`` is where the remotes file is.

    Raises:
        RemotesError: One of them cannot be used.
    """
    found = {}
    for model, variants in file.remotes.items():
        for variant, remote in variants.items():
            try:
                found[model, variant] = read_trust(_placed(remote.tls, folder))
            except (OSError, ValueError) as error:  # what is wrong with a certificate is an OSError too
                where = f"remotes.{model}.{variant}.tls: {remote.tls.model_dump(exclude_defaults=True)}"
                raise RemotesError(f"{where} cannot be used: {' '.join(str(error).split())}") from None
    return found


def _placed(files: TlsFiles, folder: Path | None) -> TlsFiles:
    if folder is None:
        return files
    return files.model_copy(update={name: str(folder / path) for name, path in files if path})


def _in_words(loc: tuple[int | str, ...], message: str, given: object) -> str:
    place = ".".join(map(str, loc)) or "the file"
    return f"{place} is {str(given)[:100]!r}; {message.removeprefix('Value error, ')}"
