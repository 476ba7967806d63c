"""What a search found, on disk, so that its ladder can be judged again when it has been measured anew."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING

from variants.build import BuildResult
from variants.errors import BuildError
from variants.ladder import Found, Rung
from variants.manifest import read_manifest
from variants.publication import versions, write_whole
from variants.search.bench import Check
from variants.search.choosing import Candidate
from variants.search.run import SearchResult

if TYPE_CHECKING:
    from pathlib import Path


def keep(result: SearchResult, file: Path) -> None:
    """Write what was searched, for ``recall``."""
    found = {field.name: getattr(result, field.name) for field in fields(result) if field.name != "build"}
    found["ladder"] = [replace(rung, pruning=None) for rung in result.ladder]  # how it was cut, the manifest says
    manifest = result.build.manifest
    found |= {"model": manifest.model, "build_key": manifest.build_key}
    write_whole(file, json.dumps(found, indent=1, default=asdict).encode() + b"\n")


def recall(file: Path, repository: Path) -> SearchResult:
    """Return what was searched, with the newest version of its model in ``repository``.

    Raises:
        BuildError: The version there is another build's.
        ManifestError: There is none.
        OSError: ``file`` cannot be read.
    """
    found = json.loads(file.read_text(encoding="utf-8"))
    model, key = found.pop("model"), found.pop("build_key")
    folder = repository / model / str(max(versions(repository, model), default=1))
    manifest = read_manifest(folder)
    if manifest.build_key != key:
        raise BuildError(f"{folder} was not built by the search in {file}, but by {manifest.build_key[:12]}")
    return SearchResult(
        candidates=tuple(Candidate(**one) for one in found.pop("candidates")),
        ladder=tuple(Rung(**one | {"found": Found(**one["found"])}) for one in found.pop("ladder")),
        check=Check(**found.pop("check")),
        build=BuildResult(folder, manifest, is_new=False),
        **found,
    )
