"""Labels over HTTP of models whose answers are values or boxes: joined, scored by the manifest's rule, acted on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.builders import make_manifest
from tests.drifting import PLAN, RIGHT, WRONG, classes_onnx
from tests.integration.test_drift import Served, serving
from tests.integration.test_drift_of_boxes import SCORING, boxes_onnx, manifest_of
from variants.drift_reference import ByValue
from variants.manifest import MANIFEST_FILE, TensorInfo

if TYPE_CHECKING:
    from pathlib import Path

    from variants.manifest import ModelManifest

SEEN = [[0, 10.0, 10.0, 8.0, 8.0], ["disc", 30.0, 30.0, 8.0, 8.0]]
"""What every request shows, give or take one pixel: class, by index or by name, centre and size."""


def write(root: Path, manifest: ModelManifest, contents: dict[str, bytes]) -> Path:
    folder = root / PLAN.name / PLAN.version
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / f"{name}.onnx").write_bytes(content)
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(), encoding="utf-8")
    return root


def values_manifest(contents: dict[str, bytes]) -> ModelManifest:
    changed = {"task": "regression", "scoring": ByValue(tolerance=0.5), "labels": ()}
    shape = (TensorInfo(name="y", datatype="FP32", shape=(-1, 4)),)
    return make_manifest(PLAN, contents).model_copy(update={**changed, "outputs": shape})


def right(number: int) -> list[list[float]]:
    """Return the label of the request that was sent as the number-th: one row of four values."""
    return [[5.0 if place == number % 4 else 0.0 for place in range(4)]]


async def labelled(served: Served, labels: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ask for as many answers as there are labels, and send these; return the reply and the answerer's drift."""
    for number in range(len(labels)):
        await served.ask(f"asked-{number}")
    who = await served.answerer()
    reply = await served.labels([{"id": f"asked-{number}", "label": label} for number, label in enumerate(labels)])
    assert reply.status_code == 200, reply.text
    return reply.json(), await served.drift(who)


async def test_values_are_right_within_the_tolerance_of_the_manifest(tmp_path: Path) -> None:
    contents = {item.name: classes_onnx(RIGHT) for item in PLAN.variants}
    manifest = values_manifest(contents)
    async with serving(write(tmp_path / "repository", manifest, contents), predictions=tmp_path / "kept.db") as served:
        answers = [right(number) for number in range(1, 7)]
        answers[0][0][1] = 5.4
        answers[1][0][2] = 5.6
        reply, found = await labelled(served, [*answers, 7.0, "north"])
        assert (reply["joined"], reply["unfit_ids"]) == (6, ["asked-6", "asked-7"])
        assert (found["labels"]["rows"], found["labels"]["accuracy"]) == (6, 5 / 6)


async def test_boxes_are_right_where_they_match_the_labelled_ones(tmp_path: Path) -> None:
    contents = {item.name: boxes_onnx(0.0) for item in PLAN.variants}
    manifest = manifest_of(contents, "detection", SCORING)
    async with serving(write(tmp_path / "repository", manifest, contents), predictions=tmp_path / "kept.db") as served:
        reply, found = await labelled(served, [[SEEN], [[]], [SEEN[:1]], SEEN[:1] * 2, [[["cup", 1, 1, 1, 1]]]])
        assert (reply["joined"], reply["unfit_ids"]) == (3, ["asked-3", "asked-4"])
        assert (found["labels"]["rows"], found["labels"]["accuracy"]) == (3, 1 / 3)


async def test_values_that_labels_call_wrong_take_the_variant_out(tmp_path: Path) -> None:
    contents = {item.name: classes_onnx(WRONG) for item in PLAN.variants}  # full too: shadow runs find nothing
    async with serving(
        write(tmp_path / "repository", values_manifest(contents), contents), predictions=tmp_path / "kept.db"
    ) as served:
        assert await served.answerer() == "quantized"
        _, found = await labelled(served, [right(number) for number in range(2, 62)])
        assert found["state"] in ("demoted", "quarantined")
        assert "labels" in found["history"][0]["evidence"]
