"""The manifest's schema is the code's, and what it does not know it refuses."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest

from variants.manifest import ManifestError, ModelManifest, manifest_schema, parse_manifest, read_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from variants.manifest import CascadeManifest


def test_schema_file_is_up_to_date() -> None:
    kept = json.loads(files("variants").joinpath("manifest.schema.json").read_text(encoding="utf-8"))
    assert kept == manifest_schema(), "write manifest_schema() to variants/manifest.schema.json"


def test_manifest_survives_the_way_through_json(manifest: ModelManifest) -> None:
    assert parse_manifest(manifest.model_dump_json(), "test") == manifest


@pytest.mark.parametrize("version", [2, 0, "1", None, True])
def test_unknown_version_is_refused_with_a_clear_message(manifest: ModelManifest, version: object) -> None:
    raw = json.loads(manifest.model_dump_json()) | {"schema_version": version}
    with pytest.raises(ManifestError, match=r"has schema_version .*; this program reads version 1: rebuild the model"):
        parse_manifest(json.dumps(raw), "manifest.json")


def test_unknown_field_is_refused_by_name(manifest: ModelManifest) -> None:
    raw = json.loads(manifest.model_dump_json()) | {"colour": "blue"}
    with pytest.raises(ManifestError, match="colour: Extra inputs are not permitted"):
        parse_manifest(json.dumps(raw), "manifest.json")


@pytest.mark.parametrize("file", ["../full.onnx", "a/b.onnx", "full.pt", ""])
def test_file_outside_the_version_is_refused(manifest: ModelManifest, file: str) -> None:
    raw = json.loads(manifest.model_dump_json())
    raw["variants"][0]["file"] = file
    with pytest.raises(ManifestError, match="must be a plain file name"):
        parse_manifest(json.dumps(raw), "manifest.json")


@pytest.mark.parametrize("text", [b"", b"[1]", b"{", b"\xff"])
def test_what_is_no_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(ManifestError):
        parse_manifest(text, "manifest.json")


def test_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.json cannot be read: No such file"):
        read_manifest(tmp_path)


def test_task_that_nothing_builds_is_refused(manifest: ModelManifest) -> None:
    raw = json.loads(manifest.model_dump_json()) | {"task": "divination"}
    with pytest.raises(ManifestError, match="task: Input should be 'classification', 'regression' or 'detection'"):
        parse_manifest(json.dumps(raw), "manifest.json")


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("inputs", [{"name": "x", "datatype": "FP32", "shape": [8, 4]}], "must start with -1"),
        ("inputs", [{"name": "x", "datatype": "FP32", "shape": [-1, 0]}], "at least 1"),
        ("inputs", [{"name": "x", "datatype": "FP32", "shape": [-1, 10**6, 10**6]}], "elements"),
        ("max_batch_size", 20_000_000, "4096"),
    ],
)
def test_manifest_that_would_exhaust_the_server_is_refused(
    manifest: ModelManifest, field: str, value: object, named: str
) -> None:
    document = json.loads(manifest.model_dump_json()) | {field: value}
    with pytest.raises(ManifestError, match=named):
        parse_manifest(json.dumps(document), "manifest.json")


def test_manifest_file_larger_than_any_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(b" " * (16 * 2**20 + 1))
    with pytest.raises(ManifestError, match="larger than"):
        read_manifest(tmp_path)


def with_cascades(manifest: ModelManifest, *cascades: dict[str, object]) -> str:
    return json.dumps(json.loads(manifest.model_dump_json()) | {"cascades": cascades})


def test_cascades_survive_the_way_through_json(cascaded: ModelManifest) -> None:
    assert parse_manifest(cascaded.model_dump_json(), "test") == cascaded


def test_manifest_written_before_cascades_has_none(manifest: ModelManifest) -> None:
    raw = json.loads(manifest.model_dump_json())
    del raw["cascades"]
    assert parse_manifest(json.dumps(raw), "manifest.json").cascades == ()


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("variant", "tiny", "must join two different published variants"),
        ("escalate_to", "distilled", "must join two different published variants"),
        ("margin", -0.1, "margin: Input should be greater than or equal to 0"),
        ("margin", float("inf"), "margin: Input should be a finite number"),
        ("margin", float("nan"), "margin: Input should be a finite number"),
        ("escalated_ratio", 1.01, "escalated_ratio"),
        ("calibrated_ratio", -0.01, "calibrated_ratio"),
        ("accuracy", float("nan"), "accuracy"),
        ("gained", -1, "gained"),
        ("colour", "blue", "Extra inputs are not permitted"),
    ],
)
def test_cascade_that_nothing_could_follow_is_refused(
    manifest: ModelManifest, cascade: CascadeManifest, field: str, value: object, named: str
) -> None:
    with pytest.raises(ManifestError, match=named):
        parse_manifest(with_cascades(manifest, cascade.model_dump() | {field: value}), "manifest.json")


def test_cascade_to_a_rejected_variant_is_refused(manifest: ModelManifest, cascade: CascadeManifest) -> None:
    raw = json.loads(with_cascades(manifest, cascade.model_dump()))
    rejected = next(item for item in raw["variants"] if item["name"] == "distilled")
    rejected["routing"] |= {"state": "rejected", "dominated_by": None}
    with pytest.raises(ManifestError, match="from 'distilled' to 'full'; it must join two different published"):
        parse_manifest(json.dumps(raw), "manifest.json")


def test_more_cascades_than_any_build_makes_are_refused(manifest: ModelManifest, cascade: CascadeManifest) -> None:
    many = [cascade.model_dump() | {"margin": float(number)} for number in range(65)]
    with pytest.raises(ManifestError, match="at most 64"):
        parse_manifest(with_cascades(manifest, *many), "manifest.json")
    with pytest.raises(ManifestError, match="cascades must be distinct"):
        parse_manifest(with_cascades(manifest, many[0], many[0]), "manifest.json")
