"""BentoML's model store as a place for built models: ``tiergate export --to bento``, ``tiergate serve bento:NAME``.

One built version of a model is one model of the store. Inside the store's folder it lies as in any repository::

    $BENTOML_HOME/models/<name>/<version>/model.yaml                           BentoML's own: tag, labels, metadata
    $BENTOML_HOME/models/<name>/<version>/<model>/<version>/manifest.json, *.onnx, report.html, ...

so that the folder of a stored model *is* a repository: the gateway reads it where it lies, with the same checks.

BentoML is an optional extra, so it is imported when first needed, and its usage reports are switched off before that.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from service.engine.repository import Repository, read_variant
from service.settings import SettingsError
from variants.manifest import MANIFEST_FILE, ManifestError, parse_manifest

if TYPE_CHECKING:
    from types import ModuleType

    from service.engine.repository import StoredModel
    from variants.manifest import ModelManifest

PREFIX: Final = "bento:"
_DO_NOT_TRACK: Final = "BENTOML_DO_NOT_TRACK"
_MOST_NAMED: Final = 20


class BentoError(SettingsError):
    """BentoML is not installed, or its store cannot take or has not what was named."""


@dataclass(frozen=True, slots=True)
class StoredBento:
    """A model version in the BentoML model store; ``repository`` is its folder, which is a repository root."""

    tag: str
    repository: Path
    manifest: ModelManifest
    is_new: bool


def turn_telemetry_off() -> None:
    """Switch BentoML's usage reports off, in this process and in those that it starts.

    BentoML reads the variable once and remembers it; its own command line does so before it imports our service.
    """
    os.environ[_DO_NOT_TRACK] = "True"
    usage_stats = sys.modules.get("bentoml._internal.utils.analytics.usage_stats")
    if usage_stats is not None:
        usage_stats.do_not_track.cache_clear()


def export_model(model: StoredModel, name: str = "") -> StoredBento:
    """Put one built version into the store as ``name:version``; the model's own name is the default.

    Every file is verified against the manifest, and the very bytes that were verified are stored. A version that is
    already there, built alike, is left as it is.

    Raises:
        BackendFailed: A variant's file is missing or is not the one of the manifest.
        BentoError: The version cannot be read, the name is no tag, or another build has that tag already.
    """
    bentoml = _import_bentoml()
    payload, manifest = _read_manifest(model)
    tag = _tag(bentoml, f"{name or manifest.model}:{manifest.version}")
    earlier = _stored(bentoml, tag)
    if earlier is not None:
        root = Path(earlier.path)
        if _manifest_bytes(root, manifest) != payload:
            raise BentoError(
                f"the BentoML model store has another build as '{tag}'; export under another --name, or remove that "
                f"one with: bentoml models delete {tag}"
            )
        return StoredBento(str(tag), root, manifest, is_new=False)
    with bentoml.models.create(tag, labels=_labels(manifest), metadata=_metadata(manifest)) as created:
        _write(model.folder, Path(created.path) / manifest.model / manifest.version, payload, manifest)
    return StoredBento(str(tag), Path(bentoml.models.get(tag).path), manifest, is_new=True)


def open_bento_model(reference: str) -> Path:
    """Return the repository root of a stored model; ``reference`` is ``NAME``, ``NAME:VERSION`` or ``NAME:latest``.

    Raises:
        BentoError: BentoML is absent, the store has no such model, or ``tiergate export`` did not put it there.
    """
    bentoml = _import_bentoml()
    tag = _tag(bentoml, reference)
    stored = _stored(bentoml, tag)
    if stored is None:
        raise BentoError(f"the BentoML model store has no model '{tag}'; it has {_names(bentoml)}")
    root = Path(stored.path)
    if not any(model.manifest for model in Repository(root).scan()):
        raise BentoError(
            f"'{stored.tag}' in the BentoML model store holds no <model>/<version>/{MANIFEST_FILE} that can be read; "
            "put a model there with: tiergate export MODEL --to bento"
        )
    return root


def repository_folder(repository: Path) -> Path:
    """Return the folder of a repository given as a folder or as ``bento:NAME[:VERSION]``.

    Raises:
        BentoError: As ``open_bento_model``.
    """
    text = str(repository)
    return open_bento_model(text.removeprefix(PREFIX)) if text.startswith(PREFIX) else repository


def _import_bentoml() -> ModuleType:
    turn_telemetry_off()
    try:
        import bentoml  # noqa: PLC0415 - an optional extra; a gateway without it must start
    except ModuleNotFoundError as error:
        if error.name != "bentoml":
            raise
        raise BentoError("BentoML is not installed; install it with: pip install 'tiergate[bento]'") from None
    return bentoml


def _tag(bentoml: ModuleType, text: str) -> Any:  # noqa: ANN401 - bentoml.Tag, of an optional extra
    try:
        if text == text.lower():  # BentoML would lower it, and only log that
            return bentoml.Tag.from_taglike(text)
    except (ValueError, bentoml.exceptions.BentoMLException):
        pass
    raise BentoError(
        f"'{text}' is no tag of the BentoML model store: allowed is NAME[:VERSION], each of at most 63 lower-case "
        "letters, digits, '.', '_' and '-', with a letter or digit at both ends"
    )


def _stored(bentoml: ModuleType, tag: Any) -> Any | None:  # noqa: ANN401 - bentoml.Tag and bentoml.Model
    wanted = tag.version
    try:
        stored = bentoml.models.get(str(tag))
    except bentoml.exceptions.NotFound:
        return None
    except bentoml.exceptions.BentoMLException as error:
        raise BentoError(f"the BentoML model store cannot give '{tag}': {error}") from None
    # The store completes versions: 'digits:1' would find 'digits:12' where no 'digits:1' is.
    return stored if wanted in (None, "latest", stored.tag.version) else None


def _names(bentoml: ModuleType) -> str:
    tags = [str(stored.tag) for stored in bentoml.models.list() if stored.info.labels.get("framework") == "tiergate"]
    more = f" and {len(tags) - _MOST_NAMED} more" if len(tags) > _MOST_NAMED else ""
    return ", ".join(tags[:_MOST_NAMED]) + more or "none of tiergate"


def _read_manifest(model: StoredModel) -> tuple[bytes, ModelManifest]:
    if model.manifest is None:
        raise BentoError(f"model '{model.name}' in {model.folder} cannot be exported: {model.problem}")
    path = model.folder / MANIFEST_FILE
    try:
        payload = path.read_bytes()
        return payload, parse_manifest(payload, str(path))
    except (OSError, ManifestError) as error:
        raise BentoError(f"model '{model.name}' cannot be exported: {error}") from None


def _manifest_bytes(root: Path, manifest: ModelManifest) -> bytes:
    try:
        return (root / manifest.model / manifest.version / MANIFEST_FILE).read_bytes()
    except OSError:
        return b""


def _write(source: Path, target: Path, payload: bytes, manifest: ModelManifest) -> None:
    """Write a version folder anew: the manifest as given, the variants as verified, then the report beside them."""
    target.mkdir(parents=True)
    (target / MANIFEST_FILE).write_bytes(payload)
    for variant in manifest.published:
        content, _ = read_variant(source, variant)
        (target / variant.file).write_bytes(content)
    for entry in sorted(source.iterdir()):
        if (target / entry.name).exists():
            continue
        if entry.is_symlink() or not entry.is_file():
            raise BentoError(f"{entry} is not a regular file; a version folder holds only those")
        (target / entry.name).write_bytes(entry.read_bytes())


def _labels(manifest: ModelManifest) -> dict[str, str]:
    return {"framework": "tiergate", "model": manifest.model, "version": manifest.version, "task": manifest.task}


def _metadata(manifest: ModelManifest) -> dict[str, Any]:
    full = [variant.accuracy.value for variant in manifest.variants if variant.tier == "full"]
    return {
        "model": manifest.model,
        "version": manifest.version,
        "build_key": manifest.build_key,
        "built_at": manifest.built_at,
        "recipe": manifest.recipe,
        "metric": manifest.metric,
        **({"full_accuracy": full[0]} if full else {}),
        "variants": {
            variant.name: {
                "tier": variant.tier,
                "state": variant.routing.state,
                "accuracy": variant.accuracy.value,
                "file_bytes": variant.size.file_bytes,
                "sha256": variant.sha256,
            }
            for variant in manifest.published
        },
    }
