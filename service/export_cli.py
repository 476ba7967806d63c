"""``tiergate export``: hand a built model to another runtime."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import argparse

    from service.bento_store import StoredBento

_REFUSED: Final = 2
_TARGETS: Final = ("bento",)


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``export``."""
    parser = subparsers.add_parser(
        "export",
        help="hand a built model to another runtime",
        description="Verify a model's newest version and hand it, with every variant and its report, to another "
        "runtime. bento: the BentoML model store, as one model that `tiergate serve bento:NAME` and a bento can use.",
    )
    parser.add_argument("model", metavar="MODEL", help="name of a model in the repository")
    parser.add_argument("--to", required=True, choices=_TARGETS, help="where to")
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("repository"),
        metavar="FOLDER",
        help="folder of built models (default: %(default)s)",
    )
    parser.add_argument("--name", default="", help="name over there (default: the model's own)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=_export)


def _export(parsed: argparse.Namespace) -> int:
    from service.bento_store import BentoError, export_model
    from service.domain.errors import BackendFailed
    from service.engine.repository import Repository

    try:
        stored = export_model(Repository(parsed.repository).find(parsed.model), parsed.name)
    except (BentoError, BackendFailed) as error:
        print(f"tiergate export: {error}", file=sys.stderr)
        return _REFUSED
    print(json.dumps(_as_json(stored), indent=2) if parsed.json else _as_text(stored))
    return 0


def _as_json(stored: StoredBento) -> dict[str, object]:
    manifest = stored.manifest
    return {
        "tag": stored.tag,
        "is_new": stored.is_new,
        "model": manifest.model,
        "version": manifest.version,
        "build_key": manifest.build_key,
        "variants": [variant.name for variant in manifest.published],
        "repository": str(stored.repository),
    }


def _as_text(stored: StoredBento) -> str:
    manifest = stored.manifest
    size_mb = sum(variant.size.file_bytes for variant in manifest.published) / 1e6
    what = f"{manifest.model} version {manifest.version} ({len(manifest.published)} variants, {size_mb:.1f} MB)"
    how = "is in the BentoML model store as" if stored.is_new else "was in the BentoML model store already as"
    return f"{what} {how} {stored.tag}\nnext: tiergate serve bento:{stored.tag}"
